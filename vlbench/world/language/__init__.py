"""Sentences of the synthetic world, each with a program that a solver can check against a scene."""
