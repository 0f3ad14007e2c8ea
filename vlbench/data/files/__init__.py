"""Files from elsewhere: download, unpack, and the hash of code files."""
