"""ViLT's weights under the names of this package: the official files' and transformers'.

They name the same tensors differently; official blocks hold query, key and value in one product.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vlbench.models.layers.convert import (
    Converted,
    matching_score,
    renamed,
    resized_grid,
    resized_line,
    strip,
    substituted,
)
from vlbench.models.layers.towers import Tower, vit
from vlbench.models.vilt.modeling import IMAGE, SECOND_IMAGE
from vlbench.models.vilt.pretraining import MATCHED

_FUSED = re.compile(r"(transformer\.blocks\.\d+\.attn\.)qkv\.(weight|bias)")
_PARTS = ("query", "key", "value")
_POSITIONS = ("transformer.pos_embed", "embeddings.position_embeddings")
_CLASS = ("transformer.cls_token", "embeddings.cls_token")
_PROJECTION = ("transformer.patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")
_TYPES = ("token_type_embeddings.weight", "embeddings.token_type_embeddings.weight")
_NEEDLESS = ("position_ids",)
_NETWORK = (
    ("transformer.blocks.", "blocks."),
    ("encoder.layer.", "blocks."),
    (".attention.attention.", ".attention."),
    (".attention.output.dense.", ".attention.output."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attn.proj.", ".attention.output."),
    (".attn.", ".attention."),
    (".mlp.fc1.", ".inner."),
    (".mlp.fc2.", ".outer."),
    (".intermediate.dense.", ".inner."),
    (".output.dense.", ".outer."),
    ("transformer.patch_embed.proj.", "projection."),
    ("embeddings.patch_embeddings.projection.", "projection."),
    ("transformer.norm.", "norm."),
    ("layernorm.", "norm."),
    ("embeddings.text_embeddings.", "text."),
    ("text_embeddings.", "text."),
    ("text.LayerNorm.", "text.norm."),
)
_KNOWN = ("blocks.", "projection.", "norm.", "text.", "pooler.")
_HEADS = (
    ("mlm_score.transform.dense.", "words.transform.0."),
    ("mlm_score.transform.LayerNorm.", "words.transform.2."),
    ("mlm_score.decoder.", "words.decoder."),
    ("mlm_score.bias", "words.decoder.bias"),
    ("itm_score.fc.", "matching."),
    ("mpp_score.transform.dense.", "colours.transform.0."),
    ("mpp_score.transform.LayerNorm.", "colours.transform.2."),
    ("mpp_score.decoder.weight", "colours.decoder.weight"),
    ("mpp_score.bias", "colours.decoder.bias"),
    ("rank_output.", "head.score."),
    ("vqa_classifier.", "head.classifier."),
    ("nlvr2_classifier.", "head.classifier."),
    ("classifier.", "head.classifier."),
)
"""Beginnings of names: what they are here. In a classifier LayerNorm stands before GELU, so its numbers agree."""


_TABLES = {
    "backbone.network.positions.weight": resized_grid,
    "backbone.network.text.position_embeddings.weight": resized_line,
}
_IMPLIED = {"backbone.network.centred": torch.zeros(())}
"""Such networks saw pixels as they are."""


def convert(state: Mapping[str, object]) -> Converted:
    """Official weights, pretrained or finetuned, or those of transformers' models.

    A file without a head that ranks hands it the matching head's row for a match, and one without a type of the second
    picture gives it the first one's, both as the official code does.

    Raises:
        VlbenchError: exit 6, what `strip` refuses.
    """
    tensors = {key.removeprefix("vilt."): value for key, value in strip(state).items()}
    tensors = {key: value for key, value in tensors.items() if not key.endswith(_NEEDLESS)}
    special = _special(tensors)
    converted = renamed(_apart(tensors), _name)
    weights = converted.weights | {f"backbone.network.{name}": value for name, value in special.items()}
    return Converted(matching_score(weights, MATCHED) | weights, converted.unexpected, _TABLES, _IMPLIED)


def _special(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What has another shape here, taken out of the tensors."""
    found: dict[str, Tensor] = {}
    for key in [*tensors]:
        if key in _POSITIONS:
            table = tensors.pop(key)[0]
            found |= {"class_position": table[0], "positions.weight": table[1:]}
        elif key in _CLASS:
            found["class_token"] = tensors.pop(key)[0, 0]
        elif key in _PROJECTION:
            found["projection.weight"] = tensors.pop(key).flatten(1)
        elif key in _TYPES:
            types = tensors.pop(key)
            missing = types[IMAGE].expand(max(0, SECOND_IMAGE + 1 - len(types)), -1)
            found["types.weight"] = torch.cat([types, missing])
    return found


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with query, key and value [D, ...] out of the one product [3 * D, ...] of official blocks."""
    apart: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if found := _FUSED.fullmatch(key):
            before, kind = found.groups()
            apart |= {f"{before}{name}.{kind}": part for name, part in zip(_PARTS, value.chunk(3), strict=True)}
        else:
            apart[key] = value
    return apart


def _name(key: str) -> str | None:
    """This package's name of a tensor; None where it has none."""
    head = next((ours + key.removeprefix(theirs) for theirs, ours in _HEADS if key.startswith(theirs)), None)
    if head is not None:
        return head
    name = substituted(key, _NETWORK)
    return f"backbone.network.{name}" if name.startswith(_KNOWN) else None


TOWERS = {
    "vision": Tower(
        tuple(f"backbone.network.{part}" for part in ("blocks.", "projection.", "positions.", "class_", "norm.")),
        vit,
        convert,
    )
}
"""ViT-B/32, whose layers the paper's pretraining starts from; the words' embeddings start at random."""
