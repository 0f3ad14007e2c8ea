"""A deterministic model for tests and dry runs."""
