"""The data types and protocols of vlbench. Imports nothing of vlbench outside core, and no torch at run time."""
