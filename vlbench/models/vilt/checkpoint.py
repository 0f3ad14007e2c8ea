"""Convert ViLT's official checkpoints, and transformers' ViLT.

They name the same tensors differently; official blocks hold query, key and value in one fused product.
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
    split_qkv,
    strip,
    substituted,
    with_new_start,
)
from vlbench.models.layers.towers import Tower, vit
from vlbench.models.vilt.modeling import IMAGE, SECOND_IMAGE

_FUSED = re.compile(r"(transformer\.blocks\.\d+\.attn\.)qkv\.(weight|bias)")
_POSITIONS = ("transformer.pos_embed", "embeddings.position_embeddings")
_CLASS = ("transformer.cls_token", "embeddings.cls_token")
_PROJECTION = ("transformer.patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")
_TYPES = ("token_type_embeddings.weight", "embeddings.token_type_embeddings.weight")
_UNUSED = ("position_ids",)
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
"""Beginnings of head names, there and here. In a classifier LayerNorm comes before GELU, so its layer numbers agree."""
_TABLES = {
    "backbone.network.positions.weight": resized_grid,
    "backbone.network.text.position_embeddings.weight": resized_line,
}
_IMPLIED = {"backbone.network.centred": torch.zeros(())}
"""Such networks were trained on pixels that are not centred."""


def convert(state: Mapping[str, object]) -> Converted:
    """Convert official weights, pretrained or fine-tuned, or transformers' weights.

    As in the official code, a file without a ranking head gets one from the matching head's row for a match, and a file
    without a type for the second image gets the first image's.
    """
    tensors = {key.removeprefix("vilt."): value for key, value in strip(state).items()}
    tensors = {key: value for key, value in tensors.items() if not key.endswith(_UNUSED)}
    special = _take_special(tensors)
    converted = renamed(split_qkv(tensors, _FUSED), _name)
    weights = converted.weights | {f"backbone.network.{name}": value for name, value in special.items()}
    return Converted(matching_score(weights) | weights, converted.unexpected, _TABLES, _IMPLIED)


def _take_special(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the tensors that have another shape here, and return them in that shape."""
    special: dict[str, Tensor] = {}
    for key in [*tensors]:
        if key in _POSITIONS:
            table = tensors.pop(key)[0]
            special |= {"class_position": table[0], "positions.weight": table[1:]}
        elif key in _CLASS:
            special["class_token"] = tensors.pop(key)[0, 0]
        elif key in _PROJECTION:
            special["projection.weight"] = tensors.pop(key).flatten(1)
        elif key in _TYPES:
            types = tensors.pop(key)
            missing = types[IMAGE].expand(max(0, SECOND_IMAGE + 1 - len(types)), -1)
            special["types.weight"] = torch.cat([types, missing])
    return special


def _name(key: str) -> str | None:
    """This package's name for a tensor, or None."""
    head = with_new_start(key, _HEADS)
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
"""ViT-B/32 initializes the layers, as in the paper's pretraining; the word embeddings start at random."""
