"""Batches, and what is stored batch by batch."""
