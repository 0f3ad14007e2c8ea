"""The detector's arithmetic on boxes and maps, against slow float64 loops on random boxes."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from vlbench.models.detector import boxes as boxes_module
from vlbench.models.detector.boxes import box_iou, suppress, suppress_in_torch, suppress_per_class, torchvision_ops
from vlbench.models.detector.pooling import SAMPLES, roi_align, roi_align_in_torch, roi_pool


def random_boxes(seed: int, count: int, width: float = 100, height: float = 80) -> Tensor:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, [0.8 * width, 0.8 * height], (count, 2))
    opposite = np.minimum(corner + rng.uniform(1, 50, (count, 2)), [width, height])
    return torch.tensor(np.concatenate([corner, opposite], 1), dtype=torch.float32)


def slow_iou(one: list[float], other: list[float]) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0.0) * max(down, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def slow_nms(boxes: Tensor, scores: Tensor, overlap: float) -> list[int]:
    rows, left, kept = boxes.double().tolist(), sorted(range(len(boxes)), key=lambda i: -float(scores[i])), []
    for index in left:
        if all(slow_iou(rows[index], rows[better]) <= overlap for better in kept):
            kept.append(index)
    return kept


def slow_value(plane: np.ndarray, y: float, x: float) -> float:
    """One bilinear sample as RoIAlign's authors take it."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = plane[top, left] * (1 - across) + plane[top, right] * across
    lower = plane[below, left] * (1 - across) + plane[below, right] * across
    return upper * (1 - down) + lower * down


def slow_align(maps: Tensor, boxes: Tensor, scale: float, side: int) -> np.ndarray:
    planes, result = maps.double().numpy(), np.zeros((len(boxes), len(maps), side, side))
    for r, box in enumerate(boxes.double().numpy() * scale - 0.5):
        cell = (box[2:] - box[:2]) / side
        for c, plane in enumerate(planes):
            for i in range(side):
                for j in range(side):
                    result[r, c, i, j] = np.mean([
                        slow_value(
                            plane,
                            box[1] + (i + (a + 0.5) / SAMPLES) * cell[1],
                            box[0] + (j + (b + 0.5) / SAMPLES) * cell[0],
                        )
                        for a in range(SAMPLES)
                        for b in range(SAMPLES)
                    ])  # fmt: skip
    return result


def slow_pool(maps: Tensor, boxes: Tensor, scale: float, side: int) -> np.ndarray:
    """RoI pooling with bounds spelled out as in Fast R-CNN's layer."""
    planes, result = maps.double().numpy(), np.zeros((len(boxes), len(maps), side, side))
    _, height, width = planes.shape
    for r, box in enumerate(boxes.double().numpy() * scale):
        x1, y1, x2, y2 = (math.floor(value + 0.5) for value in box)
        tall, wide = max(y2 - y1 + 1, 1) / side, max(x2 - x1 + 1, 1) / side
        for i in range(side):
            for j in range(side):
                top, bottom = (min(max(v + y1, 0), height) for v in (math.floor(i * tall), math.ceil((i + 1) * tall)))
                left, right = (min(max(v + x1, 0), width) for v in (math.floor(j * wide), math.ceil((j + 1) * wide)))
                if bottom > top and right > left:
                    result[r, :, i, j] = planes[:, top:bottom, left:right].max((1, 2))
    return result


def test_iou_is_that_of_the_loop() -> None:
    one, other = random_boxes(0, 40), random_boxes(1, 30)
    expected = [[slow_iou(a, b) for b in other.double().tolist()] for a in one.double().tolist()]
    np.testing.assert_allclose(box_iou(one, other).numpy(), expected, atol=1e-6)
    assert box_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


@pytest.mark.parametrize("way", [suppress, suppress_in_torch])
@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.7])
def test_suppression_is_that_of_the_loop(way: Callable[..., Tensor], overlap: float) -> None:
    for seed in range(5):
        boxes = random_boxes(seed, 150)
        scores = torch.from_numpy(np.random.default_rng(100 + seed).permutation(150) / 150)
        expected = slow_nms(boxes, scores, overlap)
        assert 1 < len(expected) < 150
        assert way(boxes, scores, overlap, 150).tolist() == expected
        assert way(boxes, scores, overlap, 7).tolist() == expected[:7]


def test_of_equal_scores_the_earlier_box_stays_and_nothing_gives_nothing() -> None:
    boxes = random_boxes(0, 1).repeat(3, 1)
    assert suppress(boxes, torch.zeros(3), 0.5, 3).tolist() == [0]
    assert suppress(boxes[:0], torch.zeros(0), 0.5, 3).shape == (0,)


def test_suppression_per_class_is_that_of_each_class_alone() -> None:
    boxes = random_boxes(3, 60)
    scores = torch.from_numpy(np.random.default_rng(3).uniform(size=(60, 12)))
    stays = suppress_per_class(boxes, scores, 0.3)
    kept = [slow_nms(boxes, scores[:, c], 0.3) for c in range(12)]
    assert [sorted(row) for row in kept] == [torch.nonzero(stays[:, c])[:, 0].tolist() for c in range(12)]
    assert len({tuple(row) for row in kept}) > 1


@pytest.mark.parametrize("way", [roi_align, roi_align_in_torch])
def test_align_is_that_of_the_loop_also_beyond_the_map(way: Callable[..., Tensor]) -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 10, 13))).float()
    outside = torch.tensor([[-60.0, -40.0, 60.0, 30.0], [150.0, 90.0, 260.0, 200.0], [50.0, 50.0, 50.0, 50.0]])
    boxes = torch.cat([2 * random_boxes(5, 60), outside])
    pooled = way(maps, boxes, 1 / 16, 4)
    np.testing.assert_allclose(pooled.numpy(), slow_align(maps, boxes, 1 / 16, 4), atol=2e-6)
    assert way(maps, boxes[:0], 1 / 16, 4).shape == (0, 3, 4, 4)


def test_pooling_is_that_of_the_loop_also_at_the_border() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 5, 7))).float()
    border = torch.tensor([[90.0, 60.0, 112.0, 80.0], [0.0, 0.0, 112.0, 80.0], [111.0, 79.0, 112.0, 80.0]])
    boxes = torch.cat([random_boxes(6, 60, 112, 80), border])
    np.testing.assert_array_equal(roi_pool(maps, boxes, 1 / 16, 3).numpy(), slow_pool(maps, boxes, 1 / 16, 3))
    assert roi_pool(maps, boxes[:0], 1 / 16, 3).shape == (0, 3, 3, 3)


@pytest.fixture
def fresh() -> Iterator[None]:
    torchvision_ops.cache_clear()
    yield
    torchvision_ops.cache_clear()


def test_torchvision_is_used_where_it_loads(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    package, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
    ops.nms = lambda boxes, scores, overlap: torch.tensor([2, 0, 1])  # type: ignore[attr-defined]
    package.ops = ops  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    assert suppress(random_boxes(0, 3), torch.zeros(3), 0.5, 2).tolist() == [2, 0]


@pytest.mark.parametrize("fault", [ImportError, RuntimeError, AttributeError])
def test_a_torchvision_that_does_not_load_is_done_without(
    fault: type[Exception], fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name.startswith("torchvision"):
                raise fault("operator torchvision::nms does not exist")

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert boxes_module.torchvision_ops() is None
    assert suppress(random_boxes(0, 1), torch.zeros(1), 0.5, 2).tolist() == [0]
