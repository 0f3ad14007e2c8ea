"""The command line: one file per verb, which turns arguments into a spec and prints the results."""
