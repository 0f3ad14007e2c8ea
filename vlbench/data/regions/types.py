"""Regions of an image, as a detector or another extractor returns them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlbench.core.examples import ImageRef


@dataclass(frozen=True)
class Regions:
    """The N regions of one image, each with D features.

    boxes [N, 4] float32: x1, y1, x2, y2 in pixels. features [N, D] float32. width, height: of the image in pixels.
    object_ids, attribute_ids [N] int64 and object_confidences, attribute_confidences [N] float32 in [0, 1]: the noisy
    predictions of a detector; zeros without a detector.
    """

    width: int
    height: int
    boxes: NDArray[np.float32]
    features: NDArray[np.float32]
    object_ids: NDArray[np.int64]
    object_confidences: NDArray[np.float32]
    attribute_ids: NDArray[np.int64]
    attribute_confidences: NDArray[np.float32]


class RegionSource(Protocol):
    """Returns the regions of an image, from stores or an extractor. dim: D, the number of features per region."""

    dim: int

    def get(self, ref: ImageRef) -> Regions: ...


class Extractor(Protocol):
    """Computes the regions of an image [H, W, 3] in RGB from these pixels only, for example with a detector.

    name: identifies the extractor and its version; it is part of the cache key of its regions. dim: D.
    """

    name: str
    dim: int

    def __call__(self, pixels: NDArray[np.uint8]) -> Regions: ...
