"""Convert LXMERT's and CVLP's official checkpoints, and transformers' LXMERT.

All use the same names for the network's tensors below a prefix: `bert.` in official files, `lxrt_encoder.model.bert.`
in fine-tuned ones, `lxmert.` in transformers' models with heads, none in its bare model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vlbench.models.layers.convert import (
    BERT_NAMES,
    Converted,
    matching_score,
    renamed,
    resized_line,
    strip,
    substituted,
    with_new_start,
    without_prefixes,
    without_tied,
)
from vlbench.models.layers.towers import Tower, bert

_PREFIXES = ("lxrt_encoder.model.", "lxmert.", "bert.")
_NETWORK = ("embeddings.", "encoder.visn_fc.", "encoder.layer.", "encoder.r_layers.", "encoder.x_layers.", "pooler.")
_WORDS, _TIED_WORDS = "embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
_LAYERS = (
    ("visual_attention.att.", "visual_attention.attention."),
    ("self_att.self.", "self_att.attention."),
    ("self_att.output.dense", "self_att.attention.output"),
    ("self_att.output.LayerNorm", "self_att.norm"),
    ("_inter.dense", "_feed_forward.inner"),
    ("_output.dense", "_feed_forward.outer"),
    ("_output.LayerNorm", "_feed_forward.norm"),
    *BERT_NAMES,
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
"""Beginnings of head names, there and here. The classifier over answers is a run's head."""
_REGIONS = "backbone.network.encoder.visn_fc.visn_fc.weight"
_TABLES = {"backbone.network.embeddings.position_embeddings.weight": resized_line}


def convert(state: Mapping[str, object]) -> Converted:
    """Convert official weights, pretrained or fine-tuned, or transformers' weights.

    The matching head's row for a match also becomes a ranking head. A word decoder equal to the word embeddings is
    dropped. CVLP's key network and language contrast have no counterpart here.
    """
    plain = {without_prefixes(key, _PREFIXES): value for key, value in strip(state).items()}
    tensors = without_tied(plain, _TIED_WORDS, _WORDS)
    converted = renamed(tensors, _name)
    weights = converted.weights | matching_score(converted.weights)
    return Converted(weights, converted.unexpected, _TABLES, _unscaled(weights))


def _unscaled(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean 0 and deviation 1 [F] for `backbone.standardise`: these networks use features unchanged."""
    regions = weights.get(_REGIONS)
    if regions is None:
        return {}
    width = regions.shape[-1]
    return {"backbone.standardise.mean": torch.zeros(width), "backbone.standardise.deviation": torch.ones(width)}


def _name(key: str) -> str | None:
    """This package's name for an official one, or None."""
    if key.startswith(_NETWORK):
        return f"backbone.network.{substituted(key, _LAYERS)}"
    return with_new_start(key, _HEADS)


TOWERS = {"text": Tower(("backbone.network.embeddings.", "backbone.network.encoder.layer."), bert("bert."), convert)}
"""BERT initializes the embeddings and the language layers; the region and cross layers have no counterpart there."""
