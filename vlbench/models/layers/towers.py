"""Initialize a part of a model from a network trained on images only or on texts only.

The functions here rename such a network's tensors to names that the model's own `convert` reads. A model's
`checkpoint.py` lists its parts of this kind in `TOWERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from vlbench.models.layers.convert import Converted, strip, substituted, without_prefixes

_BERT = ("embeddings.", "encoder.layer.")
_BERT_PREFIXES = ("bert.", "roberta.")
_VIT_ONLY = ("pooler.", "classifier.", "head.", "lm_head.", "decoder.")
_RESNET_BLOCK = re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|(shortcut))\.(\w+)\.(.+)")
_OWN_BLOCK = re.compile(r"\.blocks\.(\d+)\.(\d+)\.")
_EFFICIENTNET_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.(.+)")
_EFFICIENTNET_STEM = (
    ("embeddings.convolution.", "conv_stem."),
    ("embeddings.batchnorm.", "bn1."),
    ("encoder.top_conv.", "conv_head."),
    ("encoder.top_bn.", "bn2."),
)
_SQUEEZE = (("squeeze_excite.reduce.", "se.conv_reduce."), ("squeeze_excite.expand.", "se.conv_expand."))
_WITH_EXPANSION = (
    ("expansion.expand_conv.", "conv_pw."),
    ("expansion.expand_bn.", "bn1."),
    ("depthwise_conv.depthwise_conv.", "conv_dw."),
    ("depthwise_conv.depthwise_norm.", "bn2."),
    ("projection.project_conv.", "conv_pwl."),
    ("projection.project_bn.", "bn3."),
    *_SQUEEZE,
)
_WITHOUT_EXPANSION = (
    ("depthwise_conv.depthwise_conv.", "conv_dw."),
    ("depthwise_conv.depthwise_norm.", "bn1."),
    ("projection.project_conv.", "conv_pw."),
    ("projection.project_bn.", "bn2."),
    *_SQUEEZE,
)

Names = Callable[[Mapping[str, Tensor], Collection[str]], dict[str, Tensor]]
"""A file's tensors and the names of the model's tensors -> the tensors under names that the model's `convert` reads."""


@dataclass(frozen=True)
class Tower:
    """A part of a model that can be initialized from a network trained on images only or on texts only.

    fills: the beginnings of its tensors' names in the model; the file must hold all of them. names: renames the file's
    tensors to names that the model's `convert` reads. convert: that function.
    """

    fills: tuple[str, ...]
    names: Names
    convert: Callable[[Mapping[str, object]], Converted]

    def converted(self, state: Mapping[str, object], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of a checkpoint's tensors that belong to the tower, under the model's names.

        own: the model's tensors; position tables are resized to their number of rows.

        Raises VlbenchError: exit 6, `strip` rejects the checkpoint.
        """
        converted = self.convert(self.names(strip(state), own.keys()))
        kept = {name: value for name, value in converted.weights.items() if name.startswith(self.fills) and name in own}
        resizes = converted.tables
        sized = {name: resizes[name](kept[name], len(own[name])) for name in kept.keys() & resizes.keys()}
        return kept | sized


def bert(prefix: str) -> Names:
    """Rename BERT or RoBERTa from transformers, with or without a head: embeddings and layers below `prefix`."""

    def names(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
        plain = {without_prefixes(key, _BERT_PREFIXES): value for key, value in tensors.items()}
        return {f"{prefix}{key}": value for key, value in plain.items() if key.startswith(_BERT)}

    return names


def vit(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Rename a vision transformer: transformers' names stay, timm's move below `transformer.`, as in ViLT's files."""
    plain = {without_prefixes(key, ("vit.",)): value for key, value in tensors.items()}
    kept = {key: value for key, value in plain.items() if not key.startswith(_VIT_ONLY)}
    return {f"transformer.{key}": value for key, value in kept.items()} if "pos_embed" in kept else kept


def resnet(prefix: str) -> Names:
    """Rename a ResNet from torchvision, timm or transformers: all but the classifier below `prefix`."""

    def names(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
        plain = {without_prefixes(key, ("resnet.",)): value for key, value in tensors.items()}
        return {f"{prefix}{_resnet_name(key)}": value for key, value in plain.items() if not key.startswith("fc.")}

    return names


def efficientnet(prefix: str) -> Names:
    """Rename an EfficientNet from timm or transformers: all but the classifier below `prefix`.

    transformers counts blocks over all stages, timm within each stage; the model's own names say where a stage begins.
    """

    def names(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
        places = sorted({(int(stage), int(block)) for name in own for stage, block in _OWN_BLOCK.findall(name)})
        plain = {without_prefixes(key, ("efficientnet.",)): value for key, value in tensors.items()}
        wide = {key.partition(".expansion.")[0] for key in plain if ".expansion." in key}
        kept = {key: value for key, value in plain.items() if not key.startswith("classifier.")}
        return {f"{prefix}{_efficientnet_name(key, places, wide)}": value for key, value in kept.items()}

    return names


def _efficientnet_name(key: str, places: Sequence[tuple[int, int]], wide: Collection[str]) -> str:
    """timm's name for a tensor of transformers' EfficientNet; other names stay.

    places: stage and number of each block. wide: the beginnings of the names of blocks with an expansion.
    """
    match = _EFFICIENTNET_BLOCK.fullmatch(key)
    if match is None or int(match[1]) >= len(places):
        return substituted(key, _EFFICIENTNET_STEM)
    stage, block = places[int(match[1])]
    parts = _WITH_EXPANSION if f"encoder.blocks.{match[1]}" in wide else _WITHOUT_EXPANSION
    return f"blocks.{stage}.{block}.{substituted(match[2], parts)}"


def _resnet_name(key: str) -> str:
    """torchvision's name for a tensor of transformers' ResNet; other names stay."""
    key = key.replace("embedder.embedder.convolution.", "conv1.").replace("embedder.embedder.normalization.", "bn1.")
    match = _RESNET_BLOCK.fullmatch(key)
    if match is None:
        return key
    stage, block, layer, shortcut, kind, rest = match.groups()
    within = f"layer{int(stage) + 1}.{block}"
    if shortcut:
        return f"{within}.downsample.{0 if kind == 'convolution' else 1}.{rest}"
    return f"{within}.{'conv' if kind == 'convolution' else 'bn'}{int(layer) + 1}.{rest}"
