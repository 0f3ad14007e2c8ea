"""Comparison of runs, paired by example."""
