"""Evaluators: one per way in which a model answers a task."""
