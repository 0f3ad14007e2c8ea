"""Which architecture a file of weights belongs to, where it does not fit the requested model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vlbench import catalog
from vlbench.core.errors import VlbenchError

_HUGGINGFACE = "vlbench loads {} from transformers' files: give their folder as --model hf:FOLDER, without --checkpoint"
_TOWERS = "give it together with the folder of a {} of the same size in transformers, --model hf:FOLDER"
_ABSENT = "vlbench has no {} architecture"
UNCONVERTIBLE = (IndexError, RuntimeError, ValueError)
"""What a converter raises for tensors that have the names it expects and other dimensions."""
_MIN_CONVERTED = 0.9
"""Share of a file's tensors that a model's converter must know for the file to be attributed to the model."""


@dataclass(frozen=True)
class _Layout:
    """A file format that no model of vlbench converts.

    title: name of the architecture. needed: substrings, each of which occurs in some tensor's name. remedy: what the
    user can do, with {} for the title. never: substrings that occur in no tensor's name.
    """

    title: str
    needed: tuple[str, ...]
    remedy: str
    never: tuple[str, ...] = ()


_FOREIGN = (
    _Layout("METER", ("cross_modal_image_layers.", "cross_modal_text_layers."), _ABSENT),
    _Layout("CLIP", ("visual.transformer.resblocks.", "token_embedding"), _TOWERS),
    _Layout("CLIP", ("text_model.encoder.layers.", "vision_model.encoder.layers.", "visual_projection."), _HUGGINGFACE),
    _Layout("BLIP", ("visual_encoder.blocks.", "layer.0.crossattention."), _HUGGINGFACE),
    _Layout("BLIP", ("text_encoder.encoder.layer.0.crossattention.", "vision_model.encoder."), _HUGGINGFACE),
    _Layout("ALBEF", ("visual_encoder.blocks.", "crossattention."), _ABSENT),
    _Layout("UNITER", ("img_embeddings.img_linear.", "encoder.layer."), _ABSENT),
    _Layout("VisualBERT", ("visual_bert.",), _HUGGINGFACE),
    _Layout("BERT", ("embeddings.word_embeddings.", "encoder.layer."), _ABSENT, ("x_layers.", "patch", "blocks.")),
)
"""The first match counts: BLIP has cross-attention in all layers, ALBEF in the upper ones only."""


def describe_origin(state: Mapping[str, object], written_by: str, model: str) -> str:
    """The likely architecture of some weights and how to use them, as the end of a sentence; empty where unknown.

    written_by: model and size, where vlbench wrote the file itself. model: the requested one, which is not suggested.
    """
    if written_by:
        return f"they are vlbench's of {written_by}"
    names = _names(state)
    for layout in _FOREIGN:
        if all(_within(part, names) for part in layout.needed) and not any(_within(p, names) for p in layout.never):
            return f"this looks like a {layout.title} checkpoint; {layout.remedy.format(layout.title)}"
    if fitting := [name for name in catalog.model_folders() if name != model and _converts(name, state)]:
        return f"this looks like a checkpoint for --model {' or '.join(fitting)}"
    return ""


def _names(state: Mapping[str, object]) -> list[str]:
    """The names at the top level of a state and in nested mappings."""
    inner = [_names(value) for value in state.values() if isinstance(value, Mapping)]
    return [str(name) for name in state] + [name for names in inner for name in names]


def _within(part: str, names: Collection[str]) -> bool:
    return any(part in name for name in names)


def _converts(model: str, state: Mapping[str, object]) -> bool:
    """Whether the model's converter knows nearly all tensors of the file, and finds a backbone among them."""
    convert = catalog.weights_converter(catalog.model_card(model))
    if convert is None:
        return False
    try:
        converted = convert(state)
    except (VlbenchError, *UNCONVERTIBLE):
        return False
    known, unknown = converted.weights, len(converted.unexpected)
    has_backbone = any(name.startswith("backbone.") for name in known)
    return has_backbone and len(known) >= _MIN_CONVERTED * (len(known) + unknown)
