"""SOHO's official weights under the names of this package.

The files are PyTorch's, with `backbone.*`, `neck.*`, `language.bert.*` and heads, wrapped in `state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vlbench.models.layers.convert import Converted, renamed, resized_line, strip, substituted
from vlbench.models.layers.towers import Tower, bert, resnet

_MATCHED = 1
"""The row of the matching head that stands for a match."""
_WORDS, _TIED_WORDS = "language.bert.embeddings.word_embeddings.weight", "mask_l_fc.weight"
_MATCHING = "head.match_class.weight"
_EXACT = {
    "neck.conv.conv.weight": "backbone.network.neck.conv.weight",
    "neck.vq.embed": "backbone.network.neck.dictionary.entries",
    "neck.vq.cluster_size": "backbone.network.neck.dictionary.counts",
    "neck.vq.embed_avg": "backbone.network.neck.dictionary.sums",
    "neck.mask_emb.weight": "mask_embedding.weight",
    _MATCHING: "matching.weight",
}
_PRETRAINING = frozenset({"mask_embedding.weight", "matching.weight"})
"""What is of use in pretraining alone."""
_UNUSED = ("neck.vq.cluster_sum", "language.bert.embeddings.position_ids")
"""How many cells each entry was ever given, which no number depends on; and places counted from 0."""
_VQA = "head.vqa."
"""Linear, ReLU, Dropout, Linear over the state of [CLS]: a head of the layout `relu-dropout`."""
_EMBEDDINGS = ("word_embeddings.", "position_embeddings.", "token_type_embeddings.", "LayerNorm.")
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_GATE = ("neck.gate_fc.", "neck.pos_line.")
_BERT = (
    ("attention.output.LayerNorm", "attention.norm"),
    ("attention.output.dense", "attention.attention.output"),
    ("attention.self", "attention.attention"),
    ("intermediate.dense", "feed_forward.inner"),
    ("output.dense", "feed_forward.outer"),
    ("output.LayerNorm", "feed_forward.norm"),
)


_TABLES = {"backbone.network.embeddings.position_embeddings.weight": resized_line}


def convert(state: Mapping[str, object]) -> Converted:
    """Official pretraining weights, or those finetuned for VQA with their head.

    The matching head is handed to a head that ranks as well: its row for a match, with a bias of 0. Of `mask_l_fc`, a
    copy of the word embeddings, nothing is needed, nor of the dictionary's counts since the first step.

    Raises:
        VlbenchError: exit 6, what `strip` refuses.
    """
    tensors = {key: value for key, value in strip(state).items() if key not in _UNUSED}
    if _TIED_WORDS in tensors and _WORDS in tensors and torch.equal(tensors[_TIED_WORDS], tensors[_WORDS]):
        del tensors[_TIED_WORDS]
    converted = renamed(tensors, lambda key: _name(key, tensors[key]))
    weights = converted.weights | _score(tensors)
    return Converted(weights, converted.unexpected, _TABLES, optional=_PRETRAINING)


def _score(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    matching = tensors.get(_MATCHING)
    if matching is None:
        return {}
    return {"head.score.weight": matching[_MATCHED : _MATCHED + 1].clone(), "head.score.bias": matching.new_zeros(1)}


def _name(key: str, value: Tensor) -> str | None:
    """This package's name of an official tensor; None where it has none."""
    if key in _EXACT:
        return _EXACT[key]
    if key.startswith(_VQA):
        return f"head.classifier.{key.removeprefix(_VQA)}"
    part, _, rest = key.partition(".")
    match part:
        case "backbone" if not rest.startswith("fc."):
            return f"backbone.network.resnet.{rest}"
        case "neck":
            return _neck(key, value)
        case "language":
            return _language(rest.removeprefix("bert."))
    return None


def _neck(key: str, value: Tensor) -> str | None:
    last = key.rpartition(".")[2]
    if key.startswith("neck.ln."):
        return f"backbone.network.neck.norm.{last}"
    # The norm's own name inside the convolution's module is that of its kind, which differs between versions.
    if key.startswith("neck.conv.") and not key.startswith("neck.conv.conv.") and last in _NORM:
        return f"backbone.network.neck.bn.{last}"
    return f"backbone.network.neck.{_mixing(last, value)}" if key.startswith(_GATE) and last in _NORM else None


def _mixing(last: str, value: Tensor) -> str:
    """A tensor of the gate, told by its shape: the gate is a 1x1 convolution, its norm has two numbers of a kind."""
    if value.ndim == 4:
        return f"gate.{last}"
    return f"gate_bn.{last}" if value.ndim == 0 or value.shape == (2,) else f"project.{last}"


def _language(name: str) -> str | None:
    """`embeddings.*` and `encoder.layer.N.*`."""
    if name.startswith("encoder.layer."):
        return f"backbone.network.layers.{substituted(name.removeprefix('encoder.layer.'), _BERT)}"
    rest = name.removeprefix("embeddings.")
    if rest == name or not rest.startswith(_EMBEDDINGS):
        return None
    return f"backbone.network.embeddings.{rest.replace('LayerNorm.', 'norm.')}"


TOWERS = {
    "vision": Tower(("backbone.network.resnet.",), resnet("backbone."), convert),
    "text": Tower(("backbone.network.embeddings.", "backbone.network.layers."), bert("language.bert."), convert),
}
"""ResNet (ImageNet) and BERT, which the paper's pretraining starts from."""
