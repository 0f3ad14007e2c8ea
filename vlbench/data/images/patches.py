"""Pictures cut into square patches of pixels, each row of them with its place in the grid.

Shapes: N pictures, R patches, P pixels along the side of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Patches:
    """One picture: R patches of it, each channel by channel and in that row of pixels by row, [R, 3 * P * P].

    places [R]: where they are in the grid of `rows` x `columns`, counted row by row.
    """

    pixels: NDArray[np.uint8]
    places: NDArray[np.int64]
    rows: int
    columns: int

    def take(self, chosen: Sequence[int]) -> Patches:
        """These of the patches, in that order."""
        return Patches(self.pixels[chosen], self.places[chosen], self.rows, self.columns)


@dataclass(frozen=True)
class Stacked:
    """N pictures: pixels [N, R, 3 * P * P] uint8 and places [N, R] int64 with R the most that one has, zeros behind the
    fewer; mask [N, R], True where a patch is real; grids [N, 2] int64, rows and columns."""

    pixels: NDArray[np.uint8]
    places: NDArray[np.int64]
    mask: NDArray[np.bool_]
    grids: NDArray[np.int64]


def fitted(width: int, height: int, short_side: int, long_side: int, patch: int) -> tuple[int, int]:
    """The width and height a picture is resized to, both multiples of `patch`, at least one patch.

    The shorter side becomes `short_side`, unless the longer one would exceed `long_side`; then both are rounded down to
    whole patches. Source: Kim et al. 2021, official code.
    """
    scale = min(short_side / min(width, height), long_side / max(width, height))
    wide, high = (max(patch, int(side * scale + 0.5) // patch * patch) for side in (width, height))
    return wide, high


def cut(picture: Image.Image, short_side: int, long_side: int, patch: int) -> Patches:
    """Resize a picture (bicubic) so that it is made of whole patches, and cut it."""
    size = fitted(*picture.size, short_side, long_side, patch)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return in_patches(np.asarray(picture), patch)


def in_patches(pixels: NDArray[np.uint8], patch: int) -> Patches:
    """Cut a picture [H, W, 3] whose sides are multiples of `patch`."""
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    cells = pixels.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 4, 1, 3)
    count = rows * columns
    return Patches(cells.reshape(count, -1), np.arange(count), rows, columns)


def stack(pictures: Sequence[Patches], patch: int) -> Stacked:
    """Bring pictures cut into patches of `patch` pixels to one shape."""
    most = max((len(picture.places) for picture in pictures), default=0)
    pixels = np.zeros((len(pictures), most, 3 * patch * patch), np.uint8)
    places = np.zeros((len(pictures), most), np.int64)
    for row, picture in enumerate(pictures):
        pixels[row, : len(picture.places)] = picture.pixels
        places[row, : len(picture.places)] = picture.places
    counts = np.array([len(picture.places) for picture in pictures], np.int64)
    grids = np.array([(picture.rows, picture.columns) for picture in pictures], np.int64).reshape(-1, 2)
    return Stacked(pixels, places, np.arange(most) < counts[:, None], grids)
