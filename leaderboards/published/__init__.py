"""Figures from papers, a file per model; shipped as `vlbench._published`."""
