"""What is computed once and kept: the cache folder and the Arrow index of examples."""
