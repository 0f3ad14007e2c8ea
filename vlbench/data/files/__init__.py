"""Download and unpack files, and hash the files of plug-in code."""
