"""Splits of data sets: how they are defined, verified and compared."""
