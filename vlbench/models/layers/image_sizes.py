"""Pictures of different sizes in one batch: what of a padded canvas is a picture's own.

Shapes: N pictures, H x W pixels of the canvas, h x w cells of a map over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def inside(sizes: Tensor, height: int, width: int) -> Tensor:
    """Heights and widths [N, 2] in cells -> [N, h, w] bool, True for cells of the upper left corner of that size."""
    rows = torch.arange(height, device=sizes.device) < sizes[:, :1]  # [N, h]
    columns = torch.arange(width, device=sizes.device) < sizes[:, 1:]  # [N, w]
    return rows[:, :, None] & columns[:, None, :]


def cell_boxes(places: Tensor, grids: Tensor) -> Tensor:
    """Cells `places` [N, R], counted row by row in grids [N, 2] of rows and columns, as boxes [N, R, 4] in [0, 1].

    Left, top, right and bottom as shares of the grid's width and height.
    """
    rows, columns = grids[:, :1], grids[:, 1:]
    x, y = places % columns, places // columns
    return torch.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], dim=-1)


@dataclass(frozen=True)
class Extent:
    """sizes [N, 2]: height and width in pixels; height: of the canvas in pixels; both in whole strides."""

    sizes: Tensor
    height: int

    def cut(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] with zeros outside each picture, as a convolution pads a picture that stands alone."""
        stride = self.height // maps.shape[-2]
        return maps * inside(self.sizes // stride, maps.shape[-2], maps.shape[-1])[:, None]
