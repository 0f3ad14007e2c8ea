"""Weights of LXMERT's kind under the names of this package: LXMERT's and CVLP's own files, and transformers'.

All name the network's tensors alike below a prefix: `bert.` the official ones, `lxrt_encoder.model.bert.` those
finetuned, `lxmert.` transformers' models with heads, none its bare model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vlbench.models.layers.convert import Converted, matching_score, renamed, resized_line, strip, substituted
from vlbench.models.layers.crossmodal_pretraining import MATCHED
from vlbench.models.layers.towers import Tower, bert

_PREFIXES = ("lxrt_encoder.model.", "lxmert.", "bert.")
_NETWORK = ("embeddings.", "encoder.visn_fc.", "encoder.layer.", "encoder.r_layers.", "encoder.x_layers.", "pooler.")
_WORDS, _TIED_WORDS = "embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
_LAYERS = (
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("visual_attention.att.", "visual_attention.attention."),
    ("attention.self.", "attention.attention."),
    ("self_att.self.", "self_att.attention."),
    ("attention.output.dense", "attention.attention.output"),
    ("attention.output.LayerNorm", "attention.norm"),
    ("self_att.output.dense", "self_att.attention.output"),
    ("self_att.output.LayerNorm", "self_att.norm"),
    ("_inter.dense", "_feed_forward.inner"),
    ("_output.dense", "_feed_forward.outer"),
    ("_output.LayerNorm", "_feed_forward.norm"),
    (".intermediate.dense", ".feed_forward.inner"),
    (".output.dense", ".feed_forward.outer"),
    (".output.LayerNorm", ".feed_forward.norm"),
)
_HEADS = (
    ("cls.predictions.transform.dense.", "transform.0."),
    ("cls.predictions.transform.LayerNorm.", "transform.2."),
    ("cls.predictions.bias", "word_bias"),
    ("cls.seq_relationship.", "matching."),
    ("obj_predict_head.transform.dense.", "region_transform.0."),
    ("obj_predict_head.transform.LayerNorm.", "region_transform.2."),
    ("obj_predict_head.decoder_dict.", "region_heads."),
    ("visual_embed_head.logit_fc.", "region_head."),
    ("answer_head.logit_fc.", "head.classifier."),
    ("logit_fc.", "head.classifier."),
)
"""Beginnings of names: what they are here. The classifier over answers is a run's head, its rows the file's answers."""


_REGIONS = "backbone.network.encoder.visn_fc.visn_fc.weight"
_TABLES = {"backbone.network.embeddings.position_embeddings.weight": resized_line}


def convert(state: Mapping[str, object]) -> Converted:
    """Official weights, pretrained or finetuned, or transformers'.

    The matching head is handed to a head that ranks as well: its row for a match. A decoder of words that repeats the
    word embeddings is not needed. Of CVLP, its key network's and its language contrast's tensors have no counterpart.

    Raises:
        VlbenchError: exit 6, what `strip` refuses.
    """
    tensors = {_bare(key): value for key, value in strip(state).items()}
    if _TIED_WORDS in tensors and _WORDS in tensors and torch.equal(tensors[_TIED_WORDS], tensors[_WORDS]):
        del tensors[_TIED_WORDS]
    converted = renamed(tensors, _name)
    weights = converted.weights | matching_score(converted.weights, MATCHED)
    return Converted(weights, converted.unexpected, _TABLES, _unscaled(weights))


def _unscaled(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scale of the features [F], which these networks take as they are."""
    regions = weights.get(_REGIONS)
    if regions is None:
        return {}
    width = regions.shape[-1]
    return {"backbone.standardise.mean": torch.zeros(width), "backbone.standardise.deviation": torch.ones(width)}


def _bare(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _name(key: str) -> str | None:
    """This package's name of an official one; None where it has none."""
    if key.startswith(_NETWORK):
        return f"backbone.network.{substituted(key, _LAYERS)}"
    return next((ours + key.removeprefix(theirs) for theirs, ours in _HEADS if key.startswith(theirs)), None)


TOWERS = {
    "text": Tower(
        ("backbone.network.embeddings.", "backbone.network.encoder.layer."),
        bert("bert."),
        convert,
    )
}
"""BERT, for the words' own layers; layers over regions and across both have no counterpart there."""
