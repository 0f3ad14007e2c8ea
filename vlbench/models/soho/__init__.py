"""SOHO: Seeing Out of tHe bOx (arXiv 2104.03135)."""
