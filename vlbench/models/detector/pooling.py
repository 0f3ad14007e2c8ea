"""Pool a feature map inside boxes to grids of one size.

Shapes: C channels, h x w cells of the map, R boxes in cells, S x S cells of a pooled box.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.detector.boxes import torchvision_ops
from vlbench.models.detector.config import CELLS, STRIDE, Pooling

SAMPLES = 2
"""The number of bilinear samples along each side of a pooled cell."""
_AT_ONCE = 50
"""The number of boxes in a batch; more take memory and save no time."""


class RegionPooling(nn.Module):
    """The network's pooling; a module without weights, so that the FLOP counter can leave it out."""

    def __init__(self, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """One image's maps [C, h, w] and proposals [P, 4] in pixels -> [P, C, 14, 14]."""
        pooled = roi_align if self.pooling == "align" else roi_pool
        return pooled(maps, boxes, 1 / STRIDE, CELLS)


def roi_align(maps: Tensor, boxes: Tensor, scale: float, side: int) -> Tensor:
    """The mean of bilinear samples in each cell of each box, without rounding: [R, C, side, side].

    maps [C, h, w]: of one image. boxes [R, 4]: in pixels. scale: cells per pixel. A cell's value is at its middle.

    Source: He et al. 2017 (arXiv 1703.06870), section 3, with the half-cell shift of Detectron2.
    """
    ops = torchvision_ops()
    if ops is None:
        return roi_align_in_torch(maps, boxes, scale, side)
    pooled: Tensor = ops.roi_align(maps[None], [boxes], side, scale, SAMPLES, aligned=True)
    return pooled


def roi_align_in_torch(maps: Tensor, boxes: Tensor, scale: float, side: int) -> Tensor:
    """`roi_align` without torchvision: linear in rows and in columns, so two products give [R, C, side, side]."""
    corners = boxes * scale - 0.5
    down = _weights(corners[:, 1], corners[:, 3], side, maps.shape[1])  # [R, S, h]
    across = _weights(corners[:, 0], corners[:, 2], side, maps.shape[2])  # [R, S, w]
    flat = maps.permute(1, 2, 0).flatten(1)  # [h, w * C]
    parts = []
    for rows, columns in zip(torch.split(down, _AT_ONCE), torch.split(across, _AT_ONCE), strict=True):
        lines = (rows @ flat).view(len(rows), side, maps.shape[2], len(maps))  # [R, S, w, C]
        parts.append((columns[:, None] @ lines).permute(0, 3, 1, 2))  # [R, S, S, C] -> [R, C, S, S]
    return torch.cat(parts)


def roi_pool(maps: Tensor, boxes: Tensor, scale: float, side: int) -> Tensor:
    """The maximum over each cell of each box, with rounded corners; arguments as for `roi_align`: [R, C, side, side].

    Source: Girshick 2015 (arXiv 1504.08083), section 2.1.
    """
    corners = (boxes * scale + 0.5).floor().long()
    # The lower right corner is inside, so a box at the border reaches one cell beyond the map.
    open_map = functional.pad(maps, (0, 1, 0, 1), value=float("-inf"))
    parts = [
        functional.adaptive_max_pool2d(open_map[:, y1 : max(y1, y2) + 1, x1 : max(x1, x2) + 1], side)
        for x1, y1, x2, y2 in corners.tolist()
    ]
    pooled = torch.stack(parts) if parts else maps.new_zeros(0, maps.shape[0], side, side)
    return pooled.masked_fill(pooled.isneginf(), 0.0)


def _weights(start: Tensor, stop: Tensor, side: int, cells: int) -> Tensor:
    """The weight of each of `cells` cells in each of `side` pooled cells from start [R] to stop [R]: [R, side, cells].

    A sample interpolates the two cells around it; beyond the middle of an outer cell it takes that cell, and more than
    a cell outside it takes nothing.
    """
    steps = (torch.arange(side * SAMPLES, device=start.device) + 0.5) / (side * SAMPLES)
    places = start[:, None] + (stop - start)[:, None] * steps  # [R, S * SAMPLES]
    inside = (places >= -1) & (places <= cells)
    distance = (places.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=start.device)).abs()
    taken = (1 - distance).clamp(min=0) * inside[..., None]
    return taken.view(len(start), side, SAMPLES, cells).mean(2)
