"""What the comparisons share: inputs that need no data, two sides timed in turn, and how times are told."""

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

PICTURES = ((640, 480), (480, 640), (640, 427), (500, 375))
"""Widths and heights, COCO's usual ones."""
REGIONS, FEATURES = 36, 2048
_WORDS = [f"{first}{vowel}{last}" for first in "bdfgklmnprst" for vowel in "aeiou" for last in "bdlmnrst"]

Side = Callable[[], object]
Clock = Callable[[], float]


class Drawn:
    """Noise of the size that the picture's key begins with, `640x480 ...`, drawn once: decoding costs nothing."""

    def open(self, ref: ImageRef) -> Image.Image:
        """The picture in RGB."""
        return _drawn(ref.key)


@cache
def _drawn(key: str) -> Image.Image:
    width, height = map(int, key.split()[0].split("x"))
    return Image.fromarray(np.random.default_rng(len(key)).integers(0, 256, (height, width, 3), np.uint8))


class Boxes:
    """36 regions of 2,048 random numbers for any picture."""

    dim = FEATURES

    def get(self, ref: ImageRef) -> Regions:
        """The picture's regions."""
        return _boxes(ref.key)


@cache
def _boxes(key: str) -> Regions:
    draw = np.random.default_rng(len(key))
    corners = np.sort(draw.uniform(0, 400, (REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4).astype(np.float32)
    features = draw.standard_normal((REGIONS, FEATURES)).astype(np.float32)
    ids, confidences = np.zeros(REGIONS, np.int64), np.zeros(REGIONS, np.float32)
    return Regions(640, 480, corners, features, ids, confidences, ids, confidences)


def pictures(count: int) -> list[ImageRef]:
    """So many pictures of COCO's usual sizes, each with a key of its own."""
    sizes = (PICTURES[row % len(PICTURES)] for row in range(count))
    return [ImageRef(Path(), f"{width}x{height} {row}") for row, (width, height) in enumerate(sizes)]


def sentences(count: int) -> list[str]:
    """Captions whose words are one word piece each, about as long as COCO's: 13 tokens, some twice that."""
    chance = Random(0)
    return [" ".join(chance.choices(_WORDS, k=round(10.9 * chance.lognormvariate(0, 0.23)))) for _ in range(count)]


def measure(sides: Mapping[str, Side], repeats: int, clock: Clock = time.process_time) -> dict[str, list[float]]:
    """Seconds of every call, of the CPU by default, in turn; which side goes first alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides)[:: -1 if repeat % 2 else 1]:
            start = clock()
            sides[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """The first side's time over the second's, of neighbours in time."""
    return [one / other for one, other in zip(*seconds.values(), strict=True)]


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
