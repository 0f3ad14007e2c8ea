"""Convert CVLP's official checkpoints, and transformers' LXMERT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vlbench.models.layers import crossmodal_checkpoint
from vlbench.models.layers.convert import Converted
from vlbench.models.layers.crossmodal_checkpoint import TOWERS

__all__ = ["TOWERS", "convert"]

_UNUSED = ("lang_embed_head.", "region_transform.", "region_heads.")
"""The beginnings of the names of heads that CVLP's code builds and saves but never trains: the contrast of texts, and
LXMERT's objectives on regions."""


def convert(state: Mapping[str, object]) -> Converted:
    """Convert as `crossmodal_checkpoint.convert` does, then drop the heads that CVLP never trains."""
    converted = crossmodal_checkpoint.convert(state)
    return replace(
        converted,
        weights={name: value for name, value in converted.weights.items() if not name.startswith(_UNUSED)},
        unexpected=tuple(name for name in converted.unexpected if not name.startswith(_UNUSED)),
    )
