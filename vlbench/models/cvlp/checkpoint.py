"""CVLP's official weights, and transformers' of its architecture, under the names of this package."""

from vlbench.models.layers.crossmodal_checkpoint import convert

__all__ = ["convert"]
