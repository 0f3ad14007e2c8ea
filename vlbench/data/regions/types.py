"""What a detector (or anything that plays one) says about a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlbench.core.examples import ImageRef


@dataclass(frozen=True)
class Regions:
    """The regions of one picture, N of them, each described by D numbers.

    boxes [N, 4] float32: x1, y1, x2, y2 in pixels. features [N, D] float32. width, height: of the picture.
    object_ids, attribute_ids [N] int64 with object_confidences, attribute_confidences [N] float32 in [0, 1]:
    the detector's guesses, noisy by nature; zeros where there is no detector.
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
    """Where a region model gets its regions from: a store, an extractor, or one over the other."""

    dim: int

    def get(self, ref: ImageRef) -> Regions: ...


class Extractor(Protocol):
    """Makes regions from pixels; the door through which a real detector comes in.

    `name` identifies the extractor and its version: it is part of the cache key of what it made.
    """

    name: str
    dim: int

    def __call__(self, pixels: NDArray[np.uint8]) -> Regions:
        """Describe a picture [H, W, 3] in RGB. The result depends on these pixels only."""
        ...
