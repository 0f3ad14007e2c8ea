"""Images of different sizes in one batch: which part of a padded canvas belongs to each image.

Shapes: N images, H x W pixels of the canvas, h x w cells of a map over it, R cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vlbench.core.validate import Frozen


class SideLimits(Frozen):
    """The limits of a resized image in pixels; it keeps its aspect ratio."""

    short_side: int = Field(ge=1)
    long_side: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_sides(self) -> Self:
        if self.short_side > self.long_side:
            raise ValueError(f"short_side {self.short_side} must be at most long_side {self.long_side}")
        return self


def inside(sizes: Tensor, height: int, width: int) -> Tensor:
    """Heights and widths `sizes` [N, 2] in cells -> mask [N, height, width] bool, True in each upper left corner."""
    rows = torch.arange(height, device=sizes.device) < sizes[:, :1]  # [N, h]
    columns = torch.arange(width, device=sizes.device) < sizes[:, 1:]  # [N, w]
    return rows[:, :, None] & columns[:, None, :]


def cell_boxes(places: Tensor, grids: Tensor) -> Tensor:
    """The boxes [N, R, 4] in [0, 1] (left, top, right, bottom) of cells `places` [N, R], counted row by row.

    grids: [N, 2] int64, rows and columns of each grid.
    """
    rows, columns = grids[:, :1], grids[:, 1:]
    x, y = places % columns, places // columns
    return torch.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], dim=-1)


@dataclass(frozen=True)
class Extent:
    """The sizes of the images on a canvas.

    sizes [N, 2]: height and width of each image in pixels. height: of the canvas in pixels. Both are multiples of the
    network's stride.
    """

    sizes: Tensor
    height: int

    def cut(self, maps: Tensor) -> Tensor:
        """Set maps [N, C, h, w] to zero outside each image, which is how a convolution pads an image on its own."""
        stride = self.height // maps.shape[-2]
        return maps * inside(self.sizes // stride, maps.shape[-2], maps.shape[-1])[:, None]
