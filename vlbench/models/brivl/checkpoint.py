"""BriVL's official weights under the names of this package.

The files are PyTorch's, with `imgencoder.*`, `textencoder.*` and the same of the momentum towers (`imgencoder_mom.*`,
`textencoder_mom.*`), wrapped in `learnable`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vlbench.models.layers.convert import Converted, renamed, resized_line, strip, substituted
from vlbench.models.layers.towers import Tower, bert, efficientnet

_TOWERS = {
    "imgencoder": "backbone.network.image",
    "imgencoder_mom": "key.image",
    "textencoder": "backbone.network.text",
    "textencoder_mom": "key.text",
}
_MOMENTUM = "key."
TEMPERATURE = 0.07
_PROJECT = ".learnable.max_pool.0.weight"
_JOINED = ".self_attn.in_proj_"
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
"""Beginnings of names within a tower: what they are here."""
_UNUSED = (".backbone.classifier.", ".backbone.bert.pooler.", ".backbone.bert.embeddings.position_ids")
"""Within names of tensors that official files hold and their towers never use."""
_EMBEDDINGS = ("word_embeddings.", "position_embeddings.", "token_type_embeddings.", "LayerNorm.")
_LAYERS = (
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("attention.output.LayerNorm", "attention.norm"),
    ("attention.output.dense", "attention.attention.output"),
    ("attention.self", "attention.attention"),
    ("intermediate.dense", "feed_forward.inner"),
    ("output.dense", "feed_forward.outer"),
    ("output.LayerNorm", "feed_forward.norm"),
    ("self_attn.out_proj", "attention.output"),
    ("self_attn", "attention"),
)


_TABLES = {
    f"{tower}.embeddings.position_embeddings.weight": resized_line for tower in ("backbone.network.text", "key.text")
}


def convert(state: Mapping[str, object]) -> Converted:
    """Official weights, and the temperature they were trained with, for a head that ranks by dot products.

    The momentum towers are of use in pretraining alone. BERT's pooler and EfficientNet's classifier, which the towers
    never use, are left out.

    Raises:
        VlbenchError: exit 6, what `strip` refuses.
    """
    tensors: dict[str, Tensor] = {}
    for key, value in strip(state).items():
        if any(part in key for part in _UNUSED):
            continue
        tensors |= _apart(key, value) if _JOINED in key else {key: value}
        if key.endswith(_PROJECT):
            tensors[key] = value.flatten(1)  # a 1x1 convolution: [C, C, 1, 1] -> [C, C]
    converted = renamed(tensors, _name)
    scale = {"head.log_scale": torch.tensor(-math.log(TEMPERATURE))}
    momentum = frozenset(name for name in converted.weights if name.startswith(_MOMENTUM))
    return Converted(converted.weights | scale, converted.unexpected, _TABLES, optional=momentum)


def _apart(key: str, value: Tensor) -> dict[str, Tensor]:
    """The tensors of query, key and value [D, ...], which PyTorch keeps one below the other: [3 * D, ...]."""
    before, kind = key.split(_JOINED)
    return {
        f"{before}.self_attn.{name}.{kind}": part.clone()
        for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True)
    }


def _name(key: str) -> str | None:
    """This package's name of an official one; None where it has none."""
    tower, _, rest = key.partition(".")
    found = next(((theirs, ours) for theirs, ours in _PARTS if rest.startswith(theirs)), None)
    if tower not in _TOWERS or found is None:
        return None
    theirs, ours = found
    name = rest.removeprefix(theirs)
    if ours == "embeddings." and not name.startswith(_EMBEDDINGS):
        return None
    if ours == "cnn.":
        return None if name.startswith(("classifier.", "bert.")) else f"{_TOWERS[tower]}.cnn.{name}"
    return f"{_TOWERS[tower]}.{substituted(ours + name, _LAYERS)}"


TOWERS = {
    "vision": Tower(("backbone.network.image.cnn.",), efficientnet("imgencoder.backbone."), convert),
    "text": Tower(
        ("backbone.network.text.embeddings.", "backbone.network.text.layers."),
        bert("textencoder.backbone.bert."),
        convert,
    ),
}
"""EfficientNet and RoBERTa (a BERT by its layout), which the paper's pretraining starts from."""
