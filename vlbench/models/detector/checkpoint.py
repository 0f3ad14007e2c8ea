"""Convert published weights of the detector.

Their format is Detectron2's, to which the Caffe weights of Anderson et al. 2018 were converted (py-bottom-up-attention
and transformers' research code of LXMERT): the background is the last class, and anchors have one logit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.network import FasterRCNN
from vlbench.models.layers.convert import Converted, renamed, strip, with_new_start

_NAMES = (
    ("backbone.", "backbone."),
    ("proposal_generator.rpn_head.conv.", "rpn.conv."),
    ("proposal_generator.rpn_head.objectness_logits.", "rpn.objectness."),
    ("proposal_generator.rpn_head.anchor_deltas.", "rpn.deltas."),
    ("proposal_generator.anchor_generator.cell_anchors.0", "rpn.anchors"),
    ("roi_heads.res5.", "head.res5."),
    ("roi_heads.box_predictor.cls_score.", "head.classes."),
    ("roi_heads.box_predictor.cls_embedding.", "head.class_embedding."),
    ("roi_heads.box_predictor.fc_attr.", "head.attribute_hidden."),
    ("roi_heads.box_predictor.attr_score.", "head.attributes."),
)
_OPTIONAL = ("rpn.anchors", "num_batches_tracked")
"""Tensors that a file may lack: anchors, which default to the paper's, and a counter of frozen batch norms."""


def convert(state: Mapping[str, object]) -> Converted:
    """Rename the tensors of a file to those of `FasterRCNN`.

    The layer that refines boxes by class is unexpected: the published features are those of the proposals.
    """
    return renamed(strip(state), lambda key: with_new_start(key, _NAMES))


def load_network(state: Mapping[str, object], rules: Rules, where: str) -> tuple[FasterRCNN, tuple[str, ...]]:
    """Build the network from the tensors of the file `where`, which also give its sizes; return it and unused keys.

    rules: used unchanged but for the pooling, which becomes the one that these weights were trained with.

    Raises VlbenchError: exit 6, the tensors are not those of such a network.
    """
    converted = convert(state)
    network = FasterRCNN(_layout(converted.weights, where), replace(rules, pooling="max"))
    expected = network.state_dict()
    needed = [name for name in expected if not name.endswith(_OPTIONAL)]
    if missing := [name for name in needed if name not in converted.weights]:
        raise _unfit(where, f"lacks {len(missing)} of {len(needed)} tensors ({first_five(missing)})")
    taken = {name: tensor for name, tensor in converted.weights.items() if name in expected}
    if wrong := [name for name, tensor in taken.items() if tensor.shape != expected[name].shape]:
        name = wrong[0]
        raise _unfit(where, f"has {name} of {tuple(taken[name].shape)} where {tuple(expected[name].shape)} is expected")
    network.load_state_dict(taken, strict=False)
    spare = [f"{name} (unused)" for name in converted.weights if name not in expected]
    return network, (*converted.unexpected, *spare)


def _layout(weights: Mapping[str, Tensor], where: str) -> Layout:
    try:
        stages = ("backbone.res2.", "backbone.res3.", "backbone.res4.", "head.res5.")
        res2, res3, res4, res5 = (_blocks(weights, prefix) for prefix in stages)
        return Layout(
            blocks=(res2, res3, res4, res5),
            width=len(weights["backbone.stem.conv1.weight"]),
            rpn_width=len(weights["rpn.conv.weight"]),
            classes=len(weights["head.classes.weight"]) - 1,
            attributes=len(weights["head.attributes.weight"]) - 1,
        )
    except KeyError as error:
        raise _unfit(where, f"has no {error.args[0]}") from None


def _blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    numbers = {int(name[len(prefix) :].split(".")[0]) for name in weights if name.startswith(prefix)}
    if not numbers:
        raise KeyError(f"{prefix}*")
    return max(numbers) + 1


def _unfit(where: str, fault: str) -> VlbenchError:
    return VlbenchError(
        f"{where} {fault}: give weights of Faster R-CNN with attributes (ResNet C4) under Detectron2's names, as "
        f"py-bottom-up-attention has them",
        ExitCode.WEIGHTS,
    )
