"""Boxes: overlap, and the suppression of those that overlap with better ones.

Shapes: R boxes as x1, y1, x2, y2; C classes.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor


@cache
def torchvision_ops() -> ModuleType | None:
    """torchvision's operations, where it is installed and fits this torch; its builds for another torch do not load."""
    try:
        from torchvision import ops
    except (ImportError, RuntimeError, AttributeError):
        return None
    return ops  # type: ignore[no-any-return]


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes [R, 4] with boxes [S, 4] -> [R, S] in [0, 1]; boxes without area give 0."""
    corner = torch.maximum(one[:, None, :2], other[None, :, :2])
    opposite = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (opposite - corner).clamp(min=0).prod(-1)  # [R, S]
    union = _area(one)[:, None] + _area(other)[None] - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(union))


def suppress(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """Greedy non-maximum suppression: the best box stays, those overlapping it by more than `overlap` go, and so on.

    Args:
        boxes: [R, 4].
        scores: [R]; of equal ones the earlier box counts as better.
        overlap: intersection over union in [0, 1].
        most: how many may stay.

    Returns: the indices of those that stay, the best first: int64 [K], K <= most.
    """
    ops = torchvision_ops()
    if ops is not None:
        kept: Tensor = ops.nms(boxes, scores, overlap)[:most]
        return kept
    return suppress_in_torch(boxes, scores, overlap, most)


def suppress_in_torch(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """`suppress` without torchvision; it stops as soon as `most` boxes stay."""
    left = scores.argsort(descending=True, stable=True)
    kept: list[Tensor] = []
    while len(left) and len(kept) < most:
        kept.append(left[0])
        others = left[1:]
        left = others[box_iou(boxes[left[:1]], boxes[others])[0] <= overlap]
    return torch.stack(kept) if kept else left


def suppress_per_class(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Greedy suppression within each class, of all classes at once; the boxes are the same in all.

    Args:
        boxes: [R, 4].
        scores: of each box in each class [R, C].
        overlap: as of `suppress`.

    Returns: which boxes stay in which classes: bool [R, C].
    """
    near = box_iou(boxes, boxes) > overlap
    near.fill_diagonal_(False)
    stays = torch.ones_like(scores, dtype=torch.bool)
    # A box that stays has no better neighbour left, so it is no harm that all its neighbours go, not the worse alone.
    for box in scores.argsort(dim=0, descending=True, stable=True):  # the next best box of each class: [C]
        stays &= ~(near[box].T & stays.gather(0, box[None]))
    return stays


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
