"""Overlap of boxes and non-maximum suppression.

Shapes: R boxes as x1, y1, x2, y2; C classes.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor


@cache
def torchvision_ops() -> ModuleType | None:
    """torchvision's operations, or None: it may be missing, and a build for another torch does not load."""
    try:
        from torchvision import ops
    except (ImportError, RuntimeError, AttributeError):
        return None
    return ops  # type: ignore[no-any-return]


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes [R, 4] with boxes [S, 4] -> [R, S] in [0, 1]; 0 for boxes without area."""
    corner = torch.maximum(first[:, None, :2], second[None, :, :2])
    opposite = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (opposite - corner).clamp(min=0).prod(-1)  # [R, S]
    union = _area(first)[:, None] + _area(second)[None] - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(union))


def suppress(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """Greedy non-maximum suppression: keep the best box, drop those overlapping it by more than `overlap`, repeat.

    boxes [R, 4]. scores [R]: ties go to the earlier box. overlap: intersection over union in [0, 1]. Returns the
    indices of the kept boxes, best first: int64 [K], K <= most.
    """
    ops = torchvision_ops()
    return suppress_in_torch(boxes, scores, overlap, most) if ops is None else ops.nms(boxes, scores, overlap)[:most]


def suppress_in_torch(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """`suppress` without torchvision: boxes [R, 4], scores [R] -> int64 [K]; it stops once `most` boxes are kept."""
    left = scores.argsort(descending=True, stable=True)
    kept: list[Tensor] = []
    while len(left) and len(kept) < most:
        kept.append(left[0])
        others = left[1:]
        left = others[box_iou(boxes[left[:1]], boxes[others])[0] <= overlap]
    return torch.stack(kept) if kept else left


def suppress_per_class(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Greedy suppression inside each class, for all classes at once; all classes share the boxes [R, 4].

    scores [R, C]: of each box in each class. Returns whether a box is kept in a class: bool [R, C].
    """
    near = box_iou(boxes, boxes) > overlap
    near.fill_diagonal_(False)
    kept = torch.ones_like(scores, dtype=torch.bool)
    # A kept box has no better neighbour left, so dropping all its neighbours drops only worse ones.
    for box in scores.argsort(dim=0, descending=True, stable=True):  # the next best box of each class [C]
        kept &= ~(near[box].T & kept.gather(0, box[None]))
    return kept


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
