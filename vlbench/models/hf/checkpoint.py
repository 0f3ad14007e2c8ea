"""Two towers' weights in a file of their own under the names that they have in `HFDual`: transformers' and OpenAI's.

OpenAI's CLIP keeps the vision tower below `visual.` and the text tower at the top, the attention's query, key and value
one below the other, and both projections transposed. Source: clip/model.py of openai/CLIP.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vlbench.models.layers.convert import Converted, renamed, strip, substituted

_NETWORK = "backbone.network."
_TOWERS = ("text_model.", "vision_model.", "text_projection.", "visual_projection.", "logit_", "temperature")
"""How transformers' names of two towers begin."""
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
"""Beginnings of OpenAI's names: what they are in transformers, of which one name is misspelt."""
_LAYERS = (
    (".attn.", ".self_attn."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
_JOINED, _TRANSPOSED = ".attn.in_proj_", ("visual.proj", "text_projection")


def convert(state: Mapping[str, object]) -> Converted:
    """The towers, and their temperature for a head that ranks by dot products.

    Raises:
        VlbenchError: exit 6, what `strip` refuses.
    """
    tensors = strip(state)
    if all(name in tensors for name in _OPENAI):
        tensors = _as_transformers(tensors)
    converted = renamed(tensors, _name)
    return Converted(converted.weights | _head(tensors), converted.unexpected)


def _as_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's under transformers' names; what has none there, such as the size of its pictures, keeps its own."""
    made: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if _JOINED in key:
            before, kind = key.split(_JOINED)
            for name, part in zip("qkv", value.chunk(3), strict=True):
                made[_moved(f"{before}.attn.{name}_proj.{kind}")] = part.clone()
        else:
            made[_moved(key)] = value.T.contiguous() if key in _TRANSPOSED else value
    return made


def _moved(key: str) -> str:
    place = next(((theirs, ours) for theirs, ours in _PLACES if key.startswith(theirs)), None)
    return key if place is None else substituted(place[1] + key.removeprefix(place[0]), _LAYERS)


def _name(key: str) -> str | None:
    return f"{_NETWORK}{key}" if key.startswith(_TOWERS) and not key.endswith(".position_ids") else None


def _head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if "logit_scale" in tensors:
        return {"head.log_scale": tensors["logit_scale"].float().reshape(())}
    if "temperature" in tensors:  # ALIGN divides by it
        return {"head.log_scale": -torch.log(tensors["temperature"].float().reshape(()))}
    return {}
