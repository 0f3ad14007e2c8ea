"""Layers shared by the in-repo models."""
