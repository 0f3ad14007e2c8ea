"""LXMERT: encoders for regions and for words, then cross-attention layers (arXiv 1908.07490)."""
