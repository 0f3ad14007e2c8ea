"""Convert SOHO's official checkpoints.

The files are PyTorch's, with `backbone.*`, `neck.*`, `language.bert.*` and heads, wrapped in `state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vlbench.models.layers.convert import (
    BERT_EMBEDDINGS,
    BERT_NAMES,
    Converted,
    matching_score,
    renamed,
    resized_line,
    strip,
    substituted,
    without_tied,
)
from vlbench.models.layers.towers import Tower, bert, resnet

_WORDS, _TIED_WORDS = "language.bert.embeddings.word_embeddings.weight", "mask_l_fc.weight"
_EXACT = {
    "neck.conv.conv.weight": "backbone.network.neck.conv.weight",
    "neck.vq.embed": "backbone.network.neck.dictionary.entries",
    "neck.vq.cluster_size": "backbone.network.neck.dictionary.counts",
    "neck.vq.embed_avg": "backbone.network.neck.dictionary.sums",
    "neck.mask_emb.weight": "mask_embedding.weight",
    "head.match_class.weight": "matching.weight",
}
_PRETRAINING = frozenset({"mask_embedding.weight", "matching.weight"})
"""The names that only pretraining needs."""
_UNUSED = ("neck.vq.cluster_sum", "language.bert.embeddings.position_ids")
"""How many cells were ever assigned to each entry, which nothing depends on; and position numbers."""
_VQA = "head.vqa."
"""Linear, ReLU, Dropout, Linear over the state of [CLS]: a head of the layout `relu-dropout`."""
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_GATE = ("neck.gate_fc.", "neck.pos_line.")
_TABLES = {"backbone.network.embeddings.position_embeddings.weight": resized_line}


def convert(state: Mapping[str, object]) -> Converted:
    """Convert official pretraining weights, or weights fine-tuned for VQA with their head.

    The matching head's row for a match also becomes a ranking head, with a bias of 0. A `mask_l_fc` equal to the word
    embeddings and the dictionary's counts since the first step are dropped.
    """
    tensors = {key: value for key, value in strip(state).items() if key not in _UNUSED}
    tensors = without_tied(tensors, _TIED_WORDS, _WORDS)
    converted = renamed(tensors, lambda key: _name(key, tensors[key]))
    weights = converted.weights | matching_score(converted.weights)
    return Converted(weights, converted.unexpected, _TABLES, optional=_PRETRAINING)


def _name(key: str, value: Tensor) -> str | None:
    """This package's name for an official tensor, or None."""
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
    # The norm is named after its kind inside the convolution's module, and the kind differs between versions.
    if key.startswith("neck.conv.") and not key.startswith("neck.conv.conv.") and last in _NORM:
        return f"backbone.network.neck.bn.{last}"
    return f"backbone.network.neck.{_mixing(last, value)}" if key.startswith(_GATE) and last in _NORM else None


def _mixing(last: str, value: Tensor) -> str:
    """The name of a tensor of the gate, given by its shape: the gate is a 1x1 convolution, its norm has 2 channels."""
    if value.ndim == 4:
        return f"gate.{last}"
    return f"gate_bn.{last}" if value.ndim == 0 or value.shape == (2,) else f"project.{last}"


def _language(name: str) -> str | None:
    """`embeddings.*` and `encoder.layer.N.*`."""
    if name.startswith("encoder.layer."):
        return f"backbone.network.layers.{substituted(name.removeprefix('encoder.layer.'), BERT_NAMES)}"
    if name.startswith(tuple(f"embeddings.{part}" for part in BERT_EMBEDDINGS)):
        return f"backbone.network.{substituted(name, BERT_NAMES)}"
    return None


TOWERS = {
    "vision": Tower(("backbone.network.resnet.",), resnet("backbone."), convert),
    "text": Tower(("backbone.network.embeddings.", "backbone.network.layers."), bert("language.bert."), convert),
}
"""ResNet (ImageNet) and BERT initialize the two parts, as in the paper's pretraining."""
