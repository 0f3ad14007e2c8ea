"""CVLP's official weights, and transformers' of its architecture, under the names of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vlbench.models.layers import crossmodal_checkpoint
from vlbench.models.layers.convert import Converted
from vlbench.models.layers.crossmodal_checkpoint import TOWERS

__all__ = ["TOWERS", "convert"]

_UNUSED = ("lang_embed_head.", "region_transform.", "region_heads.")
"""How the names of heads begin that CVLP's code builds, saves and never trains: contrast of texts, and LXMERT's
objectives on regions."""


def convert(state: Mapping[str, object]) -> Converted:
    """As `crossmodal_checkpoint.convert`, without the heads that CVLP never trains.

    Raises:
        VlbenchError: exit 6, what `strip` rejects.
    """
    found = crossmodal_checkpoint.convert(state)
    return replace(
        found,
        weights={name: value for name, value in found.weights.items() if not name.startswith(_UNUSED)},
        unexpected=tuple(name for name in found.unexpected if not name.startswith(_UNUSED)),
    )
