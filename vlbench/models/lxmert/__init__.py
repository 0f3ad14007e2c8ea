"""LXMERT: regions and words in encoders of their own, then layers that cross."""
