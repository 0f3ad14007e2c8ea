"""Describe a marked part of an image by 64 features that are identical on every machine.

Layout of a descriptor (all in [0, 1]):

    0-2    mean red, green, blue
    3-5    spread (twice the standard deviation) of red, green, blue
    6-13   soft histogram over the colour cube's corners: black, blue, green, cyan, red, magenta, yellow, white
    14-49  6 x 6 cells of the box, row by row: the fraction of each cell that the part covers; for a grid
           cell, which covers its whole box, the luminance stretched to [0, 1]
    50-51  width and height over the image's
    52-53  area over the image's, and its square root
    54     area over the box's (fill)
    55     width / (width + height)
    56-57  centre of the box over the image's width and height
    58-59  centre of mass inside the box
    60-61  four times the variance of x and of y inside the box
    62     longer side over the image's longer side
    63     1 for a part found by its colour, 0 for a cell of a grid

Every feature is a quotient of integer sums (or its square root): integers below 2 ** 53 are exact in float64 and can
be added in any order, so the result does not depend on BLAS or the processor.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

DIM = 64
CELLS = 6
_LUMINANCE = (299, 587, 114)


def describe(pixels: NDArray[np.uint8], marks: Ints, boxes: Ints, found: bool) -> NDArray[np.float32]:
    """Describe the N parts that `marks` numbers.

    Args:
        pixels: [H, W, 3] RGB.
        marks: [H, W], n for the pixels of part n (1 to N, each with at least one pixel), 0 for no part.
        boxes: [N, 4] x1, y1, x2, y2 in pixels, x2 and y2 exclusive; part n is inside box n.
        found: parts found by colour (True) or cells of a grid (False).

    Returns:
        [N, 64] float32 in [0, 1], in the layout above.
    """
    part = marks.ravel() - 1
    inside = np.flatnonzero(part >= 0)
    part = part[inside]
    y, x = np.divmod(inside, marks.shape[1])
    channels = [pixels[..., channel].ravel()[inside].astype(np.float64) for channel in range(3)]
    blocks = (
        _colour(channels, part, len(boxes)),
        _coverage(marks, boxes) if found else _stretched(_luminance(pixels), boxes),
        _geometry(x, y, part, boxes, marks.shape),
        np.full((len(boxes), 1), float(found)),
    )
    return np.concatenate(blocks, axis=1).astype(np.float32)


def _sums(values: NDArray[np.float64] | Ints, part: Ints, count: int) -> Ints:
    """Sum integer `values` [P] per part: [N], exact."""
    return np.bincount(part, weights=values, minlength=count).astype(np.int64)


def _colour(channels: list[Floats], part: Ints, count: int) -> Floats:
    """Mean [N, 3], spread [N, 3] and soft histogram [N, 8] of the colours, given as three arrays [P]; P pixels."""
    area = np.bincount(part, minlength=count)
    red, green, blue = channels
    r, g, b = (_sums(channel, part, count) for channel in channels)
    first = np.stack([r, g, b], axis=1)
    second = np.stack([_sums(channel * channel, part, count) for channel in channels], axis=1)
    spread = np.sqrt((area[:, None] * second - first * first).astype(np.float64)) * 2
    rg, rb, gb = (
        _sums(first_channel * other, part, count) for first_channel, other in ((red, green), (red, blue), (green, blue))
    )
    rgb = _sums(red * green * blue, part, count)
    corners = _corners((255 * area, r, g, b), (rg, rb, gb), rgb)
    whole = (area * 255).astype(np.float64)[:, None]
    return np.concatenate([first / whole, spread / whole, corners / (whole * 255 * 255)], axis=1)


def _corners(single: tuple[Ints, Ints, Ints, Ints], double: tuple[Ints, Ints, Ints], rgb: Ints) -> Ints:
    """Sums of the products of r or 255 - r, g or 255 - g, b or 255 - b, from the sums of r, g, b, rg, ..., rgb: [N, 8].

    Expanded, so that the pixels are read once per product instead of once per corner.
    """
    white, r, g, b = (255 * 255 * values for values in single)
    rg, rb, gb = (255 * values for values in double)
    only_r, only_g, only_b = r - rg - rb + rgb, g - rg - gb + rgb, b - rb - gb + rgb
    black = white - r - g - b + rg + rb + gb - rgb
    return np.stack([black, only_b, only_g, gb - rgb, only_r, rb - rgb, rg - rgb, rgb], axis=1)


def _geometry(x: Ints, y: Ints, part: Ints, boxes: Ints, shape: tuple[int, ...]) -> Floats:
    """The position and size of each part, and the distribution of its pixels in its box: [N, 13]."""
    height, width = shape
    count = len(boxes)
    area = np.bincount(part, minlength=count)
    x1, y1, x2, y2 = boxes.T
    w, h = x2 - x1, y2 - y1
    mass_x, var_x = _moments(x - x1[part], part, area, w)
    mass_y, var_y = _moments(y - y1[part], part, area, h)
    fraction = area / (height * width)
    longest = np.maximum(w, h) / max(height, width)
    columns = [w / width, h / height, fraction, np.sqrt(fraction), area / (w * h), w / (w + h)]
    columns += [(x1 + x2) / (2 * width), (y1 + y2) / (2 * height), mass_x, mass_y, var_x, var_y, longest]
    return np.stack(columns, axis=1)


def _moments(offset: Ints, part: Ints, area: Ints, side: Ints) -> tuple[Floats, Floats]:
    """Mean of the pixel centres in [0, 1] of the box's side, and four times their variance."""
    first, second = _sums(offset, part, len(area)), _sums(offset * offset, part, len(area))
    return (2 * first + area) / (2 * area * side), 4 * (area * second - first * first) / (area * side) ** 2


def _luminance(pixels: NDArray[np.uint8]) -> Ints:
    """ITU-R 601 luminance times 1000: [H, W], up to 255,000."""
    red, green, blue = (pixels[..., channel].astype(np.int64) for channel in range(3))
    return _LUMINANCE[0] * red + _LUMINANCE[1] * green + _LUMINANCE[2] * blue


def _coverage(marks: Ints, boxes: Ints) -> Floats:
    """The fraction of each of 6 x 6 cells of its box that a part covers: [N, 36]."""
    rows = []
    for number, (x1, y1, x2, y2) in enumerate(boxes.tolist(), start=1):
        mask = (marks[y1:y2, x1:x2] == number).astype(np.float64)
        rows.append(_resampled(mask) / mask.size)
    return np.stack(rows)


def _stretched(luminance: Ints, boxes: Ints) -> Floats:
    """The mean luminance of 6 x 6 cells of each box, darkest 0, brightest 1 (all 0 if all are equal): [N, 36]."""
    rows = np.stack([_resampled(luminance[y1:y2, x1:x2].astype(np.float64)) for x1, y1, x2, y2 in boxes.tolist()])
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    stretched: Floats = (rows - low) / np.maximum(high - low, 1)
    return stretched


def _resampled(values: Floats) -> Floats:
    """Sum integers [h, w] over 6 x 6 equal cells, weighting pixels by overlap: [36], in 1 / (h * w) of a cell."""
    height, width = values.shape
    cells: Floats = _overlaps(height) @ values @ _overlaps(width).T
    return cells.ravel()


@lru_cache(maxsize=512)
def _overlaps(side: int) -> Floats:
    """The overlap of each cell with each of `side` pixels, as integers: [6, side], each row sums to `side`."""
    cell = np.arange(CELLS)[:, None] * side
    pixel = np.arange(side)[None, :] * CELLS
    overlap: Ints = np.minimum(cell + side, pixel + CELLS) - np.maximum(cell, pixel)
    return overlap.clip(min=0).astype(np.float64)
