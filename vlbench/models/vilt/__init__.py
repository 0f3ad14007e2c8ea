"""ViLT: patches of pixels and words in one transformer (arXiv 2102.03334)."""
