"""Read JSON files; every error names the file and the place."""
