"""Convert a dual encoder's checkpoint for `HFDual`: transformers' and OpenAI's.

OpenAI's CLIP has the vision tower below `visual.` and the text tower at the top, fuses query, key and value, and
transposes both projections. Source: clip/model.py of openai/CLIP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vlbench.models.layers.convert import Converted, renamed, split_qkv, strip, substituted, with_new_start

_NETWORK = "backbone.network."
_TOWERS = ("text_model.", "vision_model.", "text_projection.", "visual_projection.", "logit_", "temperature")
"""The beginnings of transformers' names."""
_OPENAI = ("visual.conv1.weight", "token_embedding.weight")
_PLACES = (
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.proj", "visual_projection.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
    ("logit_scale", "logit_scale"),
)
"""Beginnings of OpenAI's names and transformers' names, one of which is misspelt there."""
_LAYERS = (
    (".attn.", ".self_attn."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
_FUSED = re.compile(r"(.+\.attn\.)in_proj_(weight|bias)")
_TRANSPOSED = ("visual.proj", "text_projection")


def convert(state: Mapping[str, object]) -> Converted:
    """Convert the towers, and their temperature for a dual-encoder ranking head."""
    tensors = strip(state)
    if all(name in tensors for name in _OPENAI):
        tensors = _as_transformers(tensors)
    converted = renamed(tensors, _name)
    return Converted(converted.weights | _head(tensors), converted.unexpected)


def _as_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's tensors under transformers' names; those without a counterpart keep theirs."""
    turned = {key: value.T.contiguous() if key in _TRANSPOSED else value for key, value in tensors.items()}
    split = split_qkv(turned, _FUSED, parts=("q_proj", "k_proj", "v_proj"))
    return {_transformers_name(key): value for key, value in split.items()}


def _transformers_name(key: str) -> str:
    name = with_new_start(key, _PLACES)
    return key if name is None else substituted(name, _LAYERS)


def _name(key: str) -> str | None:
    return f"{_NETWORK}{key}" if key.startswith(_TOWERS) and not key.endswith(".position_ids") else None


def _head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if "logit_scale" in tensors:
        return {"head.log_scale": tensors["logit_scale"].float().reshape(())}
    if "temperature" in tensors:  # ALIGN divides by it
        return {"head.log_scale": -torch.log(tensors["temperature"].float().reshape(()))}
    return {}
