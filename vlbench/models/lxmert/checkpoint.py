"""LXMERT's official weights, and transformers' of its architecture, under the names of this package."""

from vlbench.models.layers.crossmodal_checkpoint import TOWERS, convert

__all__ = ["TOWERS", "convert"]
