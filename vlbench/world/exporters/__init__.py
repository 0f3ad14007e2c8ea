"""Exporters of the synthetic world: one per official format."""
