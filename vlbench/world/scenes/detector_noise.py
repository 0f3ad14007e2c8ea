"""Recover things from their regions (boxes and descriptors), and add the noisy labels of a simulated detector.

Descriptors are those of `vlbench.data.regions.describe`; its module docstring gives the layout.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from vlbench.data.regions.types import Regions
from vlbench.world.rng import below
from vlbench.world.scenes.render import PALETTES
from vlbench.world.scenes.scene import CELL, COLOURS, GRID, SHAPES, SIZES, Colour, Shape, Thing

OBJECT_LABELS = SHAPES
ATTRIBUTE_LABELS = tuple(f"{size} {colour}" for colour in COLOURS for size in SIZES)
"""The meaning of the object ids and attribute ids in the region files of the synthetic world."""

LABEL_ERRORS = 0.12
"""Probability that the detector gives a wrong label."""
_MEAN_COLOUR, _FILL = slice(0, 3), 54
_MIN_SIDE = 5
"""A region narrower than this many pixels is a hair, not a thing."""


def recognise_thing(box: NDArray[np.float32], descriptor: NDArray[np.float32]) -> Thing | None:
    """The thing in a box [4] with that descriptor [64]; None for a region that is too thin to be one."""
    x1, y1, x2, y2 = (int(end) for end in box)
    if min(x2 - x1, y2 - y1) < _MIN_SIDE:
        return None
    size = SIZES[max(x2 - x1, y2 - y1) >= 10]
    row, column = min((y1 + y2) // (2 * CELL), GRID - 1), min((x1 + x2) // (2 * CELL), GRID - 1)
    shape, colour = _shape(float(descriptor[_FILL])), _colour(descriptor[_MEAN_COLOUR].tolist())
    return Thing(shape, colour, size, (row, column), (x1, y1, x2, y2))


def _shape(fill: float) -> Shape:
    """The shape that covers this fraction of its box: a triangle 1 / 2, a circle pi / 4, a square 1."""
    if fill > 0.9:
        return "square"
    return "circle" if fill > 0.7 else "triangle"


def _colour(mean: list[float]) -> Colour:
    """The nearest colour of any domain; `mean` is red, green, blue in [0, 1]."""

    def distance(named: tuple[Colour, tuple[int, int, int]]) -> float:
        return sum((255 * channel - reference) ** 2 for channel, reference in zip(mean, named[1], strict=True))

    return min((named for palette in PALETTES.values() for named in palette.items()), key=distance)[0]


def with_labels(regions: Regions, rng: Random) -> Regions:
    """Add a detector's labels and confidences to the regions; wrong labels have lower confidence on average.

    object_ids index `OBJECT_LABELS`, attribute_ids `ATTRIBUTE_LABELS`; each is wrong, independently of the other, with
    probability `LABEL_ERRORS`. A region that shows no thing gets random labels.
    """
    things = [recognise_thing(*region) for region in zip(regions.boxes, regions.features, strict=True)]
    shapes = [SHAPES.index(thing.shape) if thing else None for thing in things]
    looks = [ATTRIBUTE_LABELS.index(f"{thing.size} {thing.colour}") if thing else None for thing in things]
    objects, object_confidences = _guesses(shapes, len(OBJECT_LABELS), rng)
    attributes, attribute_confidences = _guesses(looks, len(ATTRIBUTE_LABELS), rng)
    return replace(
        regions,
        object_ids=objects,
        object_confidences=object_confidences,
        attribute_ids=attributes,
        attribute_confidences=attribute_confidences,
    )


def _guesses(truths: list[int | None], classes: int, rng: Random) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A class [N] and a confidence [N] per region; a random class where the true one is None."""
    guesses = [_guess(truth, classes, rng) for truth in truths]
    return np.array([label for label, _ in guesses], np.int64), np.array([score for _, score in guesses], np.float32)


def _guess(truth: int | None, classes: int, rng: Random) -> tuple[int, float]:
    if truth is None:
        return below(rng, classes), 0.2 + 0.4 * rng.random()
    if rng.random() < LABEL_ERRORS:
        return (truth + 1 + below(rng, classes - 1)) % classes, 0.3 + 0.4 * rng.random()
    return truth, 0.5 + 0.5 * rng.random()
