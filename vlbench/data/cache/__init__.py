"""The cache folder and the Arrow index of examples."""
