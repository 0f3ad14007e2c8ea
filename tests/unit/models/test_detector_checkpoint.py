"""The detector's weights under the names that are published."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.models.detector.checkpoint import load_network
from vlbench.models.detector.config import Rules
from vlbench.models.detector.proposals import base_anchors

RULES = Rules(short_side=64, long_side=96, candidates=100, proposals=10, least=3, most=3)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state, "iteration": 3}])
def test_round_trip(wrap: Callable[[object], Any], tiny_detector: ModuleType) -> None:
    source = tiny_detector.trained(RULES)
    network, unused = load_network(wrap(tiny_detector.published(source)), RULES, "butd.bin")
    assert network.layout == tiny_detector.LAYOUT
    assert unused == ("roi_heads.box_predictor.bbox_pred.weight",)
    for name, tensor in source.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    assert network.rules.pooling == "max"
    image = torch.randn(3, 64, 80, generator=torch.Generator().manual_seed(2))
    (found,) = network([image])
    maps = source.backbone(image[None])
    boxes = source.suppress(source.propose(maps, (64, 80))[0])
    described = source.head(network.pool(maps[0], boxes))
    torch.testing.assert_close(found.boxes, boxes[source.choose(boxes, described)])


def test_the_papers_anchors_where_a_file_has_none(tiny_detector: ModuleType) -> None:
    state = tiny_detector.published(tiny_detector.trained(RULES))
    del state["proposal_generator.anchor_generator.cell_anchors.0"]
    network, _ = load_network(state, RULES, "butd.bin")
    assert torch.equal(network.rpn.anchors, base_anchors())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.pop("backbone.res3.1.conv2.norm.running_var"), "lacks 1 of"),
        (lambda state: state.pop("roi_heads.box_predictor.attr_score.weight"), "has no head.attributes.weight"),
        (lambda state: [state.pop(key) for key in list(state) if ".res4." in key], r"has no backbone.res4.\*"),
        (
            lambda state: state.update({"roi_heads.box_predictor.fc_attr.weight": torch.zeros(3, 3)}),
            r"has head.attribute_hidden.weight of \(3, 3\) where \(32, 144\) is expected",
        ),
        (lambda state: state.clear(), "holds no tensors"),
    ],
)
def test_what_does_not_fit_is_rejected(
    change: Callable[[Any], object], expected: str, tiny_detector: ModuleType
) -> None:
    state = tiny_detector.published(tiny_detector.trained(RULES))
    change(state)
    with pytest.raises(VlbenchError, match=expected) as caught:
        load_network(state, RULES, "butd.bin")
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_weights_of_something_else_are_rejected() -> None:
    with pytest.raises(VlbenchError, match=r"clip.bin has no backbone.res2.\*.*Detectron2's names"):
        load_network({"visual.conv1.weight": torch.zeros(4, 3, 7, 7)}, RULES, "clip.bin")
