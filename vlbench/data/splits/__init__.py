"""Define, verify and compare the splits of data sets."""
