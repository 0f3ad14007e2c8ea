"""The region proposal network: anchors on every cell of the map, moved and scored.

Shapes: N images, h x w cells, A anchors per cell, K boxes.
Source: Ren et al. 2015 (arXiv 1506.01497), section 3.1; sizes of Anderson et al. 2018 (arXiv 1707.07998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.detector.config import STRIDE

_SIZES = (64, 128, 256, 512)
_RATIOS = (0.5, 1.0, 2.0)
"""Height divided by width."""
_MOST_GROWTH = math.log(1000 / 16)
"""The largest growth of a side's logarithm; an untrained network's exponential would overflow."""


@dataclass(frozen=True)
class Candidates:
    """The boxes of one image before suppression, by descending score.

    boxes [K, 4] in pixels of the network's input. scores [K]: their logits.
    """

    boxes: Tensor
    scores: Tensor


class ProposalNetwork(nn.Module):
    """Score each anchor of each cell, and refine its box."""

    anchors: Tensor

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.register_buffer("anchors", base_anchors())
        anchors = len(self.anchors)
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.objectness = nn.Conv2d(width, anchors, 1)
        self.deltas = nn.Conv2d(width, 4 * anchors, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [N, C, h, w] -> logits [N, h * w * A], boxes [N, h * w * A, 4] in pixels, which may exceed the image."""
        count, _, height, width = maps.shape
        states = functional.relu(self.conv(maps))
        logits = self.objectness(states).permute(0, 2, 3, 1).flatten(1)  # [N, A, h, w] -> [N, h * w * A]
        deltas = self.deltas(states).view(count, -1, 4, height, width)  # [N, A, 4, h, w]
        moves = deltas.permute(0, 3, 4, 1, 2).flatten(1, 3)  # [N, h * w * A, 4]
        return logits, moved(self._placed(height, width), moves)

    def _placed(self, height: int, width: int) -> Tensor:
        """The anchors of all cells [h * w * A, 4], row by row."""
        sides = (torch.arange(side, device=self.anchors.device) for side in (height, width))
        y, x = torch.meshgrid(*sides, indexing="ij")  # [h, w] each
        corners = torch.stack([x, y, x, y], -1).view(-1, 1, 4) * STRIDE
        return (corners + self.anchors).view(-1, 4)


def candidates(logits: Tensor, boxes: Tensor, size: tuple[int, int], most: int, smallest: float) -> Candidates:
    """Select the `most` best boxes of one image and clip them to it; boxes with a side below `smallest` come last.

    logits [K], boxes [K, 4]. size: height and width of the network's input. Lengths are in pixels.
    """
    best = logits.argsort(descending=True, stable=True)[:most]
    height, width = size
    inside = torch.minimum(boxes[best].clamp(min=0), boxes.new_tensor([width, height, width, height]))
    large = ((inside[:, 2:] - inside[:, :2]) >= smallest).all(1)
    order = (~large).to(torch.uint8).argsort(stable=True)
    scores = logits[best].masked_fill(~large, float("-inf"))
    return Candidates(inside[order], scores[order])


def moved(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Move anchors [K, 4] by deltas [N, K, 4] -> [N, K, 4]: relative shifts, and log growth of the sides."""
    sides = anchors[:, 2:] - anchors[:, :2]
    middles = anchors[:, :2] + 0.5 * sides + deltas[..., :2] * sides
    half = 0.5 * sides * deltas[..., 2:].clamp(max=_MOST_GROWTH).exp()
    return torch.cat([middles - half, middles + half], -1)


def base_anchors() -> Tensor:
    """The anchors around the origin [12, 4]: each size in each ratio, with equal areas per size."""
    rows = []
    for size in _SIZES:
        for ratio in _RATIOS:
            width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
            rows.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(rows)
