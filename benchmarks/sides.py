"""Shared parts of the comparisons: generated inputs, timing of several sides in turn, and formatting of times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from vlbench.core.examples import ImageRef
from vlbench.data.regions.types import Regions

IMAGE_SIZES = ((640, 480), (480, 640), (640, 427), (500, 375))
"""Widths and heights that are common in COCO."""
REGIONS, FEATURES = 36, 2048
_WORDS = [f"{first}{vowel}{last}" for first in "bdfgklmnprst" for vowel in "aeiou" for last in "bdlmnrst"]

Side = Callable[[], object]
Clock = Callable[[], float]


class NoiseImages:
    """Images of noise, kept in memory so that decoding costs nothing; the key begins with the size, `640x480 ...`."""

    def open(self, ref: ImageRef) -> Image.Image:
        """The image in RGB."""
        return _noise_image(ref.key)


@cache
def _noise_image(key: str) -> Image.Image:
    width, height = map(int, key.split()[0].split("x"))
    return Image.fromarray(np.random.default_rng(len(key)).integers(0, 256, (height, width, 3), np.uint8))


class RandomRegions:
    """36 regions with 2,048 random features for any image."""

    dim = FEATURES

    def get(self, ref: ImageRef) -> Regions:
        """The regions of the image."""
        return _random_regions(ref.key)


@cache
def _random_regions(key: str) -> Regions:
    rng = np.random.default_rng(len(key))
    corners = np.sort(rng.uniform(0, 400, (REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4).astype(np.float32)
    features = rng.standard_normal((REGIONS, FEATURES)).astype(np.float32)
    ids, confidences = np.zeros(REGIONS, np.int64), np.zeros(REGIONS, np.float32)
    return Regions(640, 480, corners, features, ids, confidences, ids, confidences)


def make_refs(count: int) -> list[ImageRef]:
    """References to images for `NoiseImages`, of COCO's usual sizes, each with its own key."""
    sizes = (IMAGE_SIZES[row % len(IMAGE_SIZES)] for row in range(count))
    return [ImageRef(Path(), f"{width}x{height} {row}") for row, (width, height) in enumerate(sizes)]


def make_captions(count: int) -> list[str]:
    """Captions of one-token words, about as long as COCO's: 13 tokens, some twice that."""
    rng = Random(0)
    return [" ".join(rng.choices(_WORDS, k=round(10.9 * rng.lognormvariate(0, 0.23)))) for _ in range(count)]


def measure(sides: Mapping[str, Side], repeats: int, clock: Clock = time.process_time) -> dict[str, list[float]]:
    """Seconds of every call, by default CPU seconds; the sides run in turn and the order alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides)[:: -1 if repeat % 2 else 1]:
            start = clock()
            sides[name]()
            seconds[name].append(clock() - start)
    return seconds


def paired_ratios(seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """The first side's time over the second's, for each repeat."""
    return [first / second for first, second in zip(*seconds.values(), strict=True)]


def format_spread(values: Sequence[float]) -> str:
    """Median and range as text."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
