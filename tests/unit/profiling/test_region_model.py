"""A region model with its detector, multiplication by multiplication, against the count and the published figure."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from vlbench import catalog
from vlbench.core.profile import ModelProfile, ProfileSpec
from vlbench.models.detector import pooling
from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.network import FasterRCNN, random_network
from vlbench.profiling import build
from vlbench.profiling.flops import count_costs
from vlbench.profiling.profile import profile
from vlbench.profiling.timing import Stage
from vlbench.report.published.results import complexity
from vlbench.report.speed.table import speed_table

REGIONS = 36


def bottlenecks(blocks: int, inputs: int, width: int, cells: int) -> int:
    """Multiplications with additions of one stage of a ResNet, all of it on as many cells, with its shortcut."""
    first = inputs * width + inputs * 4 * width
    return cells * (first + (blocks - 1) * 4 * width * width + blocks * (9 * width * width + 4 * width * width))


def backbone(layout: Layout, height: int, width: int) -> tuple[int, int]:
    """Of the detector's ResNet up to res4, and the cells of its map."""
    high, wide = -(-height // 2), -(-width // 2)
    total = 49 * 3 * layout.width * high * wide
    high, wide = (
        -(-(high - 3) // 2) + 1,
        -(-(wide - 3) // 2) + 1,
    )  # the maximum of 3 x 3, every second, what stands over
    inputs = layout.width
    for number, blocks in enumerate(layout.blocks[:3]):
        if number:
            high, wide = -(-high // 2), -(-wide // 2)
        total += bottlenecks(blocks, inputs, layout.width << number, high * wide)
        inputs = 4 * layout.width << number
    return total, high * wide


def proposals(layout: Layout, cells: int) -> int:
    """Of the network that proposes 12 boxes a cell, with a score and four sides each."""
    return cells * (9 * 16 * layout.width * layout.rpn_width + 5 * 12 * layout.rpn_width)


def roi_head(layout: Layout, boxes: int) -> int:
    """Of res5 over 14 x 14 cells of each box, its class, and its attribute given the class."""
    dim = 32 * layout.width
    named = dim * (layout.classes + 1) + (dim + dim // 8) * (dim // 4) + dim // 4 * (layout.attributes + 1)
    return boxes * (bottlenecks(layout.blocks[3], 16 * layout.width, 8 * layout.width, 14 * 14) + named)


def network(size: str, dim: int, text: int) -> dict[str, int]:
    """Of CVLP's own stages over 36 regions of `dim` numbers and so many tokens."""
    numbers = catalog.model_card("cvlp").sizes[size].config
    names = ("width", "inner", "language_layers", "region_layers", "cross_layers")
    width, inner, language, region, cross = (int(numbers[name]) for name in names)

    def layer(tokens: int) -> int:
        return tokens * (4 * width * width + 2 * width * inner) + 2 * tokens * tokens * width

    def first(tokens: int) -> int:
        """A layer that computes only [CLS]: keys and values are of all tokens."""
        return 2 * (tokens + 1) * width * width + 2 * tokens * width + 2 * width * inner

    looking = 4 * width * width * (text + REGIONS) + 4 * text * REGIONS * width
    # In the last layer only the text looks at the regions, and its own layer computes only [CLS].
    last = 2 * width * width * (text + REGIONS) + 2 * text * REGIONS * width + first(text)
    return {
        "see": REGIONS * (dim + 4) * width + region * layer(REGIONS),
        "read": language * layer(text),
        "fuse": (cross - 1) * (looking + layer(text) + layer(REGIONS)) + last + width * width,
        "head": width,
    }


@pytest.fixture
def small_detector(tiny_detector: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Profiles charge for a small detector, over pictures of 96 x 160."""
    layout: Layout = tiny_detector.LAYOUT

    def small(wide: Layout, rules: Rules) -> FasterRCNN:
        return random_network(wide, replace(rules, short_side=96, long_side=160, proposals=50))

    monkeypatch.setattr(build, "Layout", lambda: layout)
    monkeypatch.setattr(build, "random_network", small)
    return layout


def profiled(**changed: str) -> ModelProfile:
    spec = {"size": "tiny", "iterations": 2, "seconds": 0.0, "max_seconds": 0.1, **changed}
    (one,) = profile(ProfileSpec.model_validate({"models": ("cvlp",), **spec}))[0].models
    assert not one.error
    return one


def test_the_whole_counted_by_hand(small_detector: Layout) -> None:
    one = profiled()
    assert one.operations is not None and one.tokens is not None and one.proposals is not None
    body, cells = backbone(small_detector, 96, 160)
    by_hand = {
        "detect backbone": body,
        "detect proposals": proposals(small_detector, cells),
        "detect NMS": 0,
        "detect RoI head": roi_head(small_detector, one.proposals[0]),
        **network("tiny", small_detector.dim, one.tokens[1]),
    }
    assert one.operations.stages == {stage: 2 * number for stage, number in by_hand.items()}
    assert one.operations.uncounted["roi_align"] == 1


def test_the_detector_at_full_size() -> None:
    """ResNet-101 over 600 x 1000 pixels and 300 proposals, without computing any of it."""
    layout = Layout()
    with torch.device("meta"):
        detector, pictures = FasterRCNN(layout, Rules()), torch.empty(1, 3, 600, 1000)
        maps, pooled = torch.empty(1, 1024, 38, 63), torch.empty(300, 1024, 14, 14)
    stages = [
        Stage("backbone", lambda: detector.backbone(pictures)),
        Stage("proposals", lambda: detector.rpn.objectness(detector.rpn.conv(maps))),
        Stage("proposals", lambda: detector.rpn.deltas(torch.empty(1, 512, 38, 63, device="meta"))),
        Stage("head", lambda: detector.head(pooled)),
    ]
    operations, parameters = count_costs({"detector": detector}, stages)
    body, cells = backbone(layout, 600, 1000)
    assert cells == 38 * 63
    by_hand = {"backbone": body, "proposals": proposals(layout, cells), "head": roi_head(layout, 300)}
    assert operations.stages == {stage: 2 * number for stage, number in by_hand.items()}
    assert parameters.stages["proposals"] == 9 * 1024 * 512 + 512 + 512 * 60 + 60


def test_torchvision_changes_no_count(small_detector: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator of its own has no formula; here one stands for it that has none either."""
    without = profiled().operations

    class Ops:
        @staticmethod
        def roi_align(
            maps: torch.Tensor, boxes: list[torch.Tensor], side: int, *_: object, **__: object
        ) -> torch.Tensor:
            return maps.mean((2, 3))[0, :, None, None].expand(len(boxes[0]), -1, side, side).contiguous()

    monkeypatch.setattr(pooling, "torchvision_ops", lambda: Ops)
    with_it = profiled().operations
    assert without is not None and with_it is not None
    assert with_it.stages == without.stages and with_it.uncounted["roi_align"] == without.uncounted["roi_align"]


def test_the_papers_figure_in_numbers() -> None:
    text = next(row.gap for row in complexity().rows if row.model == "LXMERT")
    layout, giga = Layout(), 1e9
    body, cells = backbone(layout, 600, 1000)
    res5 = 300 * bottlenecks(3, 1024, 512, 14 * 14)
    whole = body + proposals(layout, cells) + roi_head(layout, 300) + sum(network("base", layout.dim, 14).values())
    assert f" {body / giga:.0f}," in text and f"cells {res5 / giga:.0f} " in text
    assert f"CVLP {whole / giga:.0f}, {100 * (whole / giga / 952.0 - 1):.1f} % above" in text


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision(small_detector: Layout, dtype: str) -> None:
    one = profiled(dtype=dtype)
    assert one.latency is not None and one.latency.stages["detect RoI head"].p50 > 0


def test_few_proposals_are_told(small_detector: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ProfileSpec(models=("cvlp",), size="tiny", scenario=())
    record, _ = profile(spec)
    assert record.models[0].proposals == (50, 50) and "proposals of" not in speed_table(record)
    whole = FasterRCNN.suppress
    monkeypatch.setattr(FasterRCNN, "suppress", lambda self, found: whole(self, found)[:40])
    record, _ = profile(spec)
    assert record.models[0].proposals == (40, 50)
    assert "cvlp-tiny: the detector kept 40 proposals of 50" in speed_table(record)
