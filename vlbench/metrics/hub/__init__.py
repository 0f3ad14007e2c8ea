"""The metrics as `evaluate` modules, one file each, loaded by path."""
