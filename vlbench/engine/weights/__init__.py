"""Weights of any file format: found, read without running code, converted and loaded into a learner."""
