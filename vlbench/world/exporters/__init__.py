"""Exporters of the synthetic world: one module per official file format."""
