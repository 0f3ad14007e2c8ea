"""Networks trained on images or texts alone, as the start of a part of a model: their names in the spelling that the
model's own `convert` reads.

A model's `checkpoint.py` lists the parts that can start so in `TOWERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from vlbench.models.layers.convert import Converted, strip, substituted

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
"""A file's tensors, and the names of the model's own -> the tensors under names that the model's `convert` reads."""


@dataclass(frozen=True)
class Tower:
    """A part of a model that can start from a network trained on images or on texts alone.

    fills: how the names of its tensors in the model begin; all of them must be in the file. names: how the file's
    tensors come to names that `convert` of the same model reads. convert: that function.
    """

    fills: tuple[str, ...]
    names: Names
    convert: Callable[[Mapping[str, object]], Converted]

    def converted(self, state: Mapping[str, object], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A single network's tensors under the model's names, as far as they belong to the tower.

        own: the model's tensors; tables of positions are brought to their number of rows.

        Raises:
            VlbenchError: exit 6, what `strip` rejects.
        """
        found = self.convert(self.names(strip(state), own.keys()))
        kept = {name: value for name, value in found.weights.items() if name.startswith(self.fills) and name in own}
        sized = {name: found.tables[name](kept[name], len(own[name])) for name in kept.keys() & found.tables.keys()}
        return kept | sized


def bert(prefix: str) -> Names:
    """BERT's or RoBERTa's embeddings and layers, of transformers' models with or without a head, below `prefix`."""

    def names(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
        plain = {_without(key, _BERT_PREFIXES): value for key, value in tensors.items()}
        return {f"{prefix}{key}": value for key, value in plain.items() if key.startswith(_BERT)}

    return names


def vit(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """A vision transformer: transformers' names, or timm's, which ViLT's files have below `transformer.`."""
    plain = {_without(key, ("vit.",)): value for key, value in tensors.items()}
    kept = {key: value for key, value in plain.items() if not key.startswith(_VIT_ONLY)}
    return {f"transformer.{key}": value for key, value in kept.items()} if "pos_embed" in kept else kept


def resnet(prefix: str) -> Names:
    """A ResNet of torchvision's, timm's or transformers' names, below `prefix`; without its classifier."""

    def names(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
        plain = {_without(key, ("resnet.",)): value for key, value in tensors.items()}
        return {f"{prefix}{_resnet_name(key)}": value for key, value in plain.items() if not key.startswith("fc.")}

    return names


def efficientnet(prefix: str) -> Names:
    """An EfficientNet of timm's or transformers' names, below `prefix`; without its classifier.

    transformers counts blocks over all stages and timm within each, so the model's own names tell where a stage begins.
    """

    def names(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
        places = sorted({(int(stage), int(block)) for name in own for stage, block in _OWN_BLOCK.findall(name)})
        plain = {_without(key, ("efficientnet.",)): value for key, value in tensors.items()}
        wide = {key.partition(".expansion.")[0] for key in plain if ".expansion." in key}
        kept = {key: value for key, value in plain.items() if not key.startswith("classifier.")}
        return {f"{prefix}{_efficientnet_name(key, places, wide)}": value for key, value in kept.items()}

    return names


def _efficientnet_name(key: str, places: Sequence[tuple[int, int]], wide: Collection[str]) -> str:
    """timm's name of a tensor of transformers' EfficientNet; any other name as it is.

    places: stage and block of each block. wide: how the names of blocks begin that multiply their channels first.
    """
    found = _EFFICIENTNET_BLOCK.fullmatch(key)
    if found is None or int(found[1]) >= len(places):
        return substituted(key, _EFFICIENTNET_STEM)
    stage, block = places[int(found[1])]
    parts = _WITH_EXPANSION if f"encoder.blocks.{found[1]}" in wide else _WITHOUT_EXPANSION
    return f"blocks.{stage}.{block}.{substituted(found[2], parts)}"


def _resnet_name(key: str) -> str:
    """torchvision's name of a tensor of transformers' ResNet; any other name as it is."""
    key = key.replace("embedder.embedder.convolution.", "conv1.").replace("embedder.embedder.normalization.", "bn1.")
    found = _RESNET_BLOCK.fullmatch(key)
    if found is None:
        return key
    stage, block, layer, shortcut, kind, rest = found.groups()
    within = f"layer{int(stage) + 1}.{block}"
    if shortcut:
        return f"{within}.downsample.{0 if kind == 'convolution' else 1}.{rest}"
    return f"{within}.{'conv' if kind == 'convolution' else 'bn'}{int(layer) + 1}.{rest}"


def _without(key: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key
