"""The command line: one file per verb; argv to a spec, and printing."""
