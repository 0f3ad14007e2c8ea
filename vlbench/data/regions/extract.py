"""Extract regions without a trained detector: parts of one colour in flat images, a grid of boxes in others."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from vlbench.data.regions.describe import DIM, Ints, describe
from vlbench.data.regions.types import Regions

MAX_REGIONS = 36
SPECK = 8
"""Parts with fewer pixels are smoothed edges, not objects."""
_STEP = 16
"""Neighbouring pixels whose channels differ by at most this belong to one part."""
_SPREAD = 12
"""The largest standard deviation of a channel within one colour."""
_FLAT_SHARE, _MAIN_SHARE = 0.6, 0.125
"""The least fraction of a flat image that its plain parts cover together, and its largest part alone."""
_PANEL_SHARE = 0.25
"""The least area of a panel, as a fraction of the largest."""
_MAX_PIXELS = 250_000


class FlatExtractor:
    """An `Extractor` that uses exact arithmetic: the result is bitwise identical on every machine.

    An image is flat if parts of one colour cover most of it. Then its regions are those parts without the background
    and without specks, the largest first (ties in reading order), at most 36. The regions of any other image are the
    whole image and its 2 x 2, 3 x 3 and 4 x 4 cells. Features are those of `describe`; labels and confidences are 0.
    """

    name = "flat-1"
    dim = DIM

    def __call__(self, pixels: NDArray[np.uint8]) -> Regions:
        """Return the regions of an image [H, W, 3] in RGB: N >= 1, D = 64."""
        # Taking every n-th pixel of a large photograph is exact; a resampling filter is not.
        stride = 1
        while (pixels.shape[0] // stride) * (pixels.shape[1] // stride) > _MAX_PIXELS:
            stride += 1
        small = pixels[::stride, ::stride]
        labels = _label_parts(small)
        chosen = _flat_parts(small, labels)
        if chosen is None:
            boxes, features = _grid(small, MAX_REGIONS)
        elif not len(chosen):
            boxes, features = _grid(small, 1)
        else:
            boxes, features = _parts(small, labels, chosen)
        return _regions(boxes * stride, features, pixels.shape[1], pixels.shape[0])


def _regions(boxes: Ints, features: NDArray[np.float32], width: int, height: int) -> Regions:
    count = len(boxes)
    ids, zeros = np.zeros(count, np.int64), np.zeros(count, np.float32)
    inside = np.minimum(boxes, [width, height, width, height]).astype(np.float32)
    return Regions(width, height, inside, features, ids, zeros, ids, zeros)


def _label_parts(pixels: NDArray[np.uint8]) -> Ints:
    """Number the 4-connected parts in which neighbours have similar colours: [H, W], from 1.

    Pixels are at the even positions of a grid twice as fine; the position between two neighbours is open if they are
    similar. So one pass of `ndimage.label` is enough for all colours.
    """
    height, width, _ = pixels.shape
    signed = pixels.astype(np.int16)
    open_cells = np.zeros((2 * height - 1, 2 * width - 1), dtype=bool)
    open_cells[::2, ::2] = True
    open_cells[1::2, ::2] = _are_similar(signed[1:], signed[:-1])
    open_cells[::2, 1::2] = _are_similar(signed[:, 1:], signed[:, :-1])
    labels, _ = scipy.ndimage.label(open_cells)
    return np.asarray(labels[::2, ::2], dtype=np.int64)


def _are_similar(first: NDArray[np.int16], second: NDArray[np.int16]) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = np.abs(first - second) <= _STEP
    return near[..., 0] & near[..., 1] & near[..., 2]


def _flat_parts(pixels: NDArray[np.uint8], labels: Ints) -> Ints | None:
    """The labels [L] of the parts that are neither background nor specks; None if the image is not flat."""
    flat = labels.ravel()
    area = np.bincount(flat)
    large = np.flatnonzero(area >= SPECK)
    if not len(large):
        return None
    channels = pixels.reshape(-1, 3).T.astype(np.float64)
    first = np.stack([np.bincount(flat, weights=channel)[large] for channel in channels])
    second = np.stack([np.bincount(flat, weights=channel * channel)[large] for channel in channels])
    size = area[large]
    plain = np.all(size * second - first * first <= (_SPREAD * size).astype(np.float64) ** 2, axis=0)
    main = int(np.argmax(size))
    if not plain[main] or size[main] < _MAIN_SHARE * len(flat) or size[plain].sum() < _FLAT_SHARE * len(flat):
        return None
    like_background = _like_background(labels, large, size, first / size, main)
    return large[~like_background]


def _like_background(
    labels: Ints, large: Ints, size: Ints, colour: NDArray[np.float64], main: int
) -> NDArray[np.bool_]:
    """Which of the L large parts belong to the background: [L].

    The largest part is the background if it touches all four sides. Otherwise it is one of several panels (NLVR v1),
    and the background is the area between them, the largest other colour that touches the edge, and the slivers of a
    panel that objects separate from it.
    """
    sides = [set(np.unique(side).tolist()) for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1])]
    like_main = _near(colour, main)
    if all(large[main] in side for side in sides):
        return like_main
    between = ~like_main & np.isin(large, sorted(set().union(*sides)))
    slivers: NDArray[np.bool_] = like_main & (size < _PANEL_SHARE * size[main])
    if between.any():
        slivers |= _near(colour, int(np.argmax(np.where(between, size, 0))))
    return slivers


def _near(colour: NDArray[np.float64], index: int) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = np.all(np.abs(colour - colour[:, index : index + 1]) <= _STEP, axis=0)
    return near


def _parts(pixels: NDArray[np.uint8], labels: Ints, chosen: Ints) -> tuple[Ints, NDArray[np.float32]]:
    """Boxes [N, 4] and features [N, 64] of the chosen labels, the largest first, then from the top left, N <= 36."""
    area = np.bincount(labels.ravel())
    numbers = np.zeros(len(area), dtype=np.int64)
    numbers[chosen] = np.arange(1, len(chosen) + 1)
    boxes = _boxes(numbers[labels])
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -area[chosen]))[:MAX_REGIONS]
    numbers[chosen] = 0
    numbers[chosen[order]] = np.arange(1, len(order) + 1)
    return boxes[order], describe(pixels, numbers[labels], boxes[order], found=True)


def _boxes(marks: Ints) -> Ints:
    """The bounding boxes [N, 4] of the numbered parts."""
    slices = [part for part in scipy.ndimage.find_objects(marks) if part is not None]
    return np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices], dtype=np.int64)


def _grid(pixels: NDArray[np.uint8], most: int) -> tuple[Ints, NDArray[np.float32]]:
    """The whole image, its 2 x 2 cells, 3 x 3 cells and so on, at most `most` in total: boxes and features."""
    height, width, _ = pixels.shape
    boxes, features = [], []
    level, total = 1, 1
    while total <= most and level <= min(height, width):
        rows, columns = np.arange(height) * level // height, np.arange(width) * level // width
        marks = rows[:, None] * level + columns[None, :] + 1
        boxes.append(_boxes(marks))
        features.append(describe(pixels, marks, boxes[-1], found=False))
        level += 1
        total += level * level
    return np.concatenate(boxes), np.concatenate(features)
