"""Profiles as tables, charts and pages."""
