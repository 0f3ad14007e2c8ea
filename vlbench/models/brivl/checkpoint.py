"""Convert BriVL's official checkpoints.

The files are PyTorch's, with `imgencoder.*`, `textencoder.*` and the same for the momentum towers (`imgencoder_mom.*`,
`textencoder_mom.*`), wrapped in `learnable`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vlbench.models.layers.convert import (
    BERT_EMBEDDINGS,
    BERT_NAMES,
    Converted,
    renamed,
    resized_line,
    split_qkv,
    strip,
    substituted,
    with_new_start,
)
from vlbench.models.layers.towers import Tower, bert, efficientnet

_TOWERS = {
    "imgencoder": "backbone.network.image",
    "imgencoder_mom": "key.image",
    "textencoder": "backbone.network.text",
    "textencoder_mom": "key.text",
}
_MOMENTUM = "key."
TEMPERATURE = 0.07
_FUSED = re.compile(r"(.+\.self_attn\.)in_proj_(weight|bias)")
_PROJECT = ".learnable.max_pool.0.weight"
_PARTS = (
    ("learnable.imgFC.", "head."),
    ("learnable.textFC.", "head."),
    ("learnable.imgAtt.layers.", "head.layers."),
    ("learnable.textAtt.layers.", "head.layers."),
    ("learnable.max_pool.0.", "project."),
    ("backbone.bert.encoder.layer.", "layers."),
    ("backbone.bert.embeddings.", "embeddings."),
    ("backbone.", "cnn."),
)
"""Beginnings of names inside a tower, there and here."""
_UNUSED = (".backbone.classifier.", ".backbone.bert.pooler.", ".backbone.bert.embeddings.position_ids")
"""Parts of the names of tensors that the towers never use."""
_LAYERS = (*BERT_NAMES, ("self_attn.out_proj", "attention.output"), ("self_attn", "attention"))
_TABLES = {
    f"{tower}.embeddings.position_embeddings.weight": resized_line for tower in ("backbone.network.text", "key.text")
}


def convert(state: Mapping[str, object]) -> Converted:
    """Convert official weights, and the temperature they were trained with, for a dual-encoder ranking head.

    Only pretraining needs the momentum towers. BERT's pooler and EfficientNet's classifier, which the towers never use,
    are dropped.
    """
    tensors: dict[str, Tensor] = {}
    for key, value in strip(state).items():
        if not any(part in key for part in _UNUSED):
            tensors[key] = value.flatten(1) if key.endswith(_PROJECT) else value  # 1x1: [C, C, 1, 1] -> [C, C]
    converted = renamed(split_qkv(tensors, _FUSED), _name)
    scale = {"head.log_scale": torch.tensor(-math.log(TEMPERATURE))}
    momentum = frozenset(name for name in converted.weights if name.startswith(_MOMENTUM))
    return Converted(converted.weights | scale, converted.unexpected, _TABLES, optional=momentum)


def _name(key: str) -> str | None:
    """This package's name for an official one, or None."""
    tower, _, rest = key.partition(".")
    name = with_new_start(rest, _PARTS)
    if tower not in _TOWERS or name is None or name.startswith(("cnn.classifier.", "cnn.bert.")):
        return None
    part, _, inner = name.partition(".")
    if part == "embeddings" and not inner.startswith(BERT_EMBEDDINGS):
        return None
    return f"{_TOWERS[tower]}.{name if part == 'cnn' else substituted(name, _LAYERS)}"


TOWERS = {
    "vision": Tower(("backbone.network.image.cnn.",), efficientnet("imgencoder.backbone."), convert),
    "text": Tower(
        tuple(f"backbone.network.text.{part}." for part in ("embeddings", "layers")),
        bert("textencoder.backbone.bert."),
        convert,
    ),
}
"""EfficientNet and RoBERTa (which has BERT's layout) initialize the towers, as in the paper's pretraining."""
