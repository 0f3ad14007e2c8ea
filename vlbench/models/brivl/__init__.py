"""BriVL: Bridging Vision and Language, WenLan (arXiv 2103.06561)."""
