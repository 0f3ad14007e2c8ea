"""Convert LXMERT's official checkpoints, and transformers' LXMERT."""

from vlbench.models.layers.crossmodal_checkpoint import TOWERS, convert

__all__ = ["TOWERS", "convert"]
