"""The supported models of transformers by `model_type`; a table that is read without importing the library.

Sources: the library's modeling files, and the papers named in their documentation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlbench.core.cards import HeadLayout, OutputKind
from vlbench.core.errors import VlbenchError

Kind = Literal["fusion", "dual", "generative"]
_TORCH_EPSILON = 1e-5
"""The default epsilon of torch's LayerNorm, for heads that do not set another."""
_PLAIN = HeadLayout()
_VILT = HeadLayout(order="norm-activation", epsilon=_TORCH_EPSILON)


@dataclass(frozen=True)
class TrainedHead:
    """The trained head of an architecture.

    output: its kind of output. inside: the attribute that holds the model without the head; empty: the whole model.
    layers: the attribute with the head's layers. layout: the layout of the same head in this package.
    """

    output: OutputKind
    inside: str
    layers: str
    layout: HeadLayout = _PLAIN


@dataclass(frozen=True)
class Family:
    """One `model_type`.

    model: its class in transformers, without a head. network: a fusion model's class in `networks`. positions: longest
    text in tokens, if config.json does not say. unused: positions that no token takes. pad: whether texts are padded to
    that length, as in training. embeds: whether a fusion model is a dual encoder too. heads: by architecture.
    """

    kind: Kind
    title: str
    model: str = ""
    network: str = ""
    visual: Literal["regions", "patches"] = "patches"
    positions: int = 512
    unused: int = 0
    pad: bool = False
    embeds: bool = False
    heads: Mapping[str, TrainedHead] = field(default_factory=dict)


FAMILIES: Mapping[str, Family] = {
    "vilt": Family(
        kind="fusion",
        title="ViLT",
        model="ViltModel",
        network="Vilt",
        positions=40,
        heads={
            "ViltForQuestionAnswering": TrainedHead("classify", "vilt", "classifier", _VILT),
            "ViltForImagesAndTextClassification": TrainedHead("pair", "vilt", "classifier", _VILT),
            "ViltForImageAndTextRetrieval": TrainedHead("rank", "vilt", "rank_output"),
        },
    ),
    "lxmert": Family(
        kind="fusion",
        title="LXMERT",
        model="LxmertModel",
        network="Lxmert",
        visual="regions",
        heads={"LxmertForQuestionAnswering": TrainedHead("classify", "lxmert", "answer_head.logit_fc")},
    ),
    "visual_bert": Family(
        kind="fusion", title="VisualBERT", model="VisualBertModel", network="VisualBert", visual="regions"
    ),
    "flava": Family(kind="fusion", title="FLAVA", model="FlavaModel", network="Flava"),
    "bridgetower": Family(
        kind="fusion",
        title="BridgeTower",
        model="BridgeTowerModel",
        network="BridgeTower",
        positions=514,
        unused=2,
        heads={"BridgeTowerForImageAndTextRetrieval": TrainedHead("rank", "bridgetower", "itm_score.fc")},
    ),
    "blip": Family(
        kind="fusion",
        title="BLIP",
        model="BlipForImageTextRetrieval",
        network="Blip",
        embeds=True,
        heads={"BlipForImageTextRetrieval": TrainedHead("rank", "", "itm_head")},
    ),
    "clip": Family(kind="dual", title="CLIP", model="CLIPModel", positions=77),
    "siglip": Family(kind="dual", title="SigLIP", model="SiglipModel", positions=64, pad=True),
    "siglip2": Family(kind="dual", title="SigLIP 2", model="Siglip2Model", positions=64, pad=True),
    "align": Family(kind="dual", title="ALIGN", model="AlignModel"),
    "altclip": Family(kind="dual", title="AltCLIP", model="AltCLIPModel", positions=514, unused=2),
    "chinese_clip": Family(kind="dual", title="Chinese CLIP", model="ChineseCLIPModel"),
    "vision-text-dual-encoder": Family(kind="dual", title="VisionTextDualEncoder", model="VisionTextDualEncoderModel"),
}
"""The models that get heads of this package."""

# fmt: off
GENERATIVE = (
    "aria", "aya_vision", "cohere2_vision", "deepseek_vl", "deepseek_vl_hybrid", "gemma3", "gemma3n", "gemma4",
    "glm46v", "glm4v", "glm4v_moe", "idefics2", "idefics3", "internvl", "lfm2_vl", "llama4", "llava", "llava_next",
    "llava_next_video", "llava_onevision", "mistral3", "mllama", "ovis2", "paligemma", "perception_lm", "qwen2_5_vl",
    "qwen2_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe", "smolvlm", "vipllava",
)
# fmt: on
"""Generative models: those of AutoModelForImageTextToText that take images and a prompt."""
GENERATIVE_CLASS = "AutoModelForImageTextToText"
_UNSUPPORTED = ("BlipForConditionalGeneration", "BlipForQuestionAnswering")
"""Generative architectures of a `model_type` in FAMILIES."""


def family_of(model_type: str, architecture: str, name: str, own_code: Collection[str] = ()) -> Family:
    """Return the family of the model `name` with that `model_type` and architecture in its config.json.

    own_code: the library's Auto classes that code in the folder implements.

    Raises VlbenchError: the family is unsupported; the message lists the supported ones.
    """
    family = FAMILIES.get(model_type)
    if model_type in GENERATIVE or (family is None and GENERATIVE_CLASS in own_code):
        return Family(kind="generative", title=model_type)
    if family is not None and architecture not in _UNSUPPORTED:
        return family
    if family is not None:
        raise VlbenchError(
            f"{name} is a {architecture}, a generative architecture that is unsupported: give a "
            f"{family.model}, or another generative model ({', '.join(GENERATIVE)})"
        )
    raise VlbenchError(
        f"{name} has the model_type {model_type!r}, which takes no images with texts or is "
        f"unsupported: give one of {', '.join((*FAMILIES, *GENERATIVE))}"
    )
