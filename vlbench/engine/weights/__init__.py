"""Weights of any layout: found, read without code, converted, handed to a learner."""
