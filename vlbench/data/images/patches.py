"""Cut images into square patches of pixels and stack them, each patch with its position in the grid.

Shapes: N images, R patches, P pixels along the side of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Patches:
    """R patches of one image.

    pixels [R, 3 * P * P] uint8: a patch is stored channel by channel, and each channel row by row. places [R] int64:
    their positions in the grid of `rows` x `columns`, counted row by row.
    """

    pixels: NDArray[np.uint8]
    places: NDArray[np.int64]
    rows: int
    columns: int

    def take(self, chosen: Sequence[int]) -> Patches:
        """Return the chosen patches, in that order."""
        return Patches(self.pixels[chosen], self.places[chosen], self.rows, self.columns)


@dataclass(frozen=True)
class StackedPatches:
    """The patches of N images, padded with zeros to R, the largest number of patches.

    pixels [N, R, 3 * P * P] uint8. places [N, R] int64. mask [N, R] bool: False on padding. grids [N, 2] int64: rows
    and columns.
    """

    pixels: NDArray[np.uint8]
    places: NDArray[np.int64]
    mask: NDArray[np.bool_]
    grids: NDArray[np.int64]


def fitted(width: int, height: int, short_side: int, long_side: int, patch: int) -> tuple[int, int]:
    """Return the width and height to resize an image to, both positive multiples of `patch`.

    The shorter side becomes `short_side`, or less if the longer one would exceed `long_side`; then both are rounded
    down to whole patches. Source: Kim et al. 2021, official code.
    """
    scale = min(short_side / min(width, height), long_side / max(width, height))
    wide, high = (max(patch, int(side * scale + 0.5) // patch * patch) for side in (width, height))
    return wide, high


def cut(image: Image.Image, short_side: int, long_side: int, patch: int) -> Patches:
    """Resize an image (bicubic) to the size of `fitted` and cut it into patches of `patch` x `patch` pixels."""
    size = fitted(*image.size, short_side, long_side, patch)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return in_patches(np.asarray(image), patch)


def in_patches(pixels: NDArray[np.uint8], patch: int) -> Patches:
    """Cut an image [H, W, 3] uint8, with H and W multiples of `patch`, into R = H * W / patch ** 2 patches."""
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    cells = pixels.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 4, 1, 3)
    count = rows * columns
    return Patches(cells.reshape(count, -1), np.arange(count), rows, columns)


def stack(images: Sequence[Patches], patch: int) -> StackedPatches:
    """Stack the patches of N images, of `patch` x `patch` pixels each, into arrays of one shape."""
    most = max((len(image.places) for image in images), default=0)
    pixels = np.zeros((len(images), most, 3 * patch * patch), np.uint8)
    places = np.zeros((len(images), most), np.int64)
    for row, image in enumerate(images):
        pixels[row, : len(image.places)] = image.pixels
        places[row, : len(image.places)] = image.places
    counts = np.array([len(image.places) for image in images], np.int64)
    grids = np.array([(image.rows, image.columns) for image in images], np.int64).reshape(-1, 2)
    return StackedPatches(pixels, places, np.arange(most) < counts[:, None], grids)
