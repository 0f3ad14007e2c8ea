"""The blind control: the same run with every picture replaced by one that says nothing."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from vlbench.core.examples import Example, ImageRef
from vlbench.data.cache.folder import atomic_write
from vlbench.data.images.load import mean_picture
from vlbench.data.regions.types import Regions, RegionSource
from vlbench.data.resources import Resources

BLIND_KEY = "blind"
_SAMPLE = 500
"""Pictures that a mean is taken over."""

Reference = TypeVar("Reference")


def blind_examples(examples: Sequence[Example[Reference]], blind: ImageRef) -> list[Example[Reference]]:
    """The same examples, every picture replaced by `blind`; the number of pictures stays."""
    return [
        replace(example, query=replace(example.query, images=(blind,) * len(example.query.images)))
        for example in examples
    ]


def blind_resources(resources: Resources, refs: Sequence[ImageRef], folder: Path) -> tuple[Resources, ImageRef]:
    """Resources that show nothing of any picture, and the reference to the one picture left.

    Args:
        resources: those of the real run.
        refs: its pictures; a seeded sample of at most 500 of them decides the means.
        folder: where `blind.png`, the mean picture, is written. Where no picture of the sample exists (a data set
            of features only) it is plain grey: nobody looks at it.

    Raises:
        DataError: a picture or its regions cannot be read, or the folder cannot be written.
    """
    ordered = sorted(refs, key=lambda ref: ref.key)
    sample = random.Random(0).sample(ordered, min(_SAMPLE, len(ordered)))
    paths = [ref.path for ref in sample if ref.path.exists()]
    picture = mean_picture(paths) if paths else Image.new("RGB", (64, 64), (128, 128, 128))
    blind = ImageRef(folder / "blind.png", BLIND_KEY)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    atomic_write(blind.path, content.getvalue())
    if resources.regions is None:
        return resources, blind
    return replace(resources, regions=constant_regions(resources.regions, sample)), blind


@dataclass
class ConstantRegions:
    """A RegionSource that says the same of every picture."""

    dim: int
    regions: Regions

    def get(self, ref: ImageRef) -> Regions:
        """The one constant, whatever picture is meant."""
        return self.regions


def constant_regions(source: RegionSource, refs: Sequence[ImageRef]) -> ConstantRegions:
    """The mean of the pictures' regions: as many as there are on average (rounded), the n-th of them the mean of
    all n-th ones (features, and boxes relative to their picture); without labels.

    Raises:
        DataError: the source lacks a picture.
    """
    all_regions = [source.get(ref) for ref in refs]
    count = round(sum(len(regions.boxes) for regions in all_regions) / len(all_regions))
    width, height = (round(sum(sides) / len(refs)) for sides in zip(*map(_size, all_regions), strict=True))
    features, boxes = np.zeros((count, source.dim)), np.zeros((count, 4))
    seen = np.zeros((count, 1))
    for regions in all_regions:
        first = min(count, len(regions.boxes))
        features[:first] += regions.features[:first]
        boxes[:first] += regions.boxes[:first] / np.tile(_size(regions), 2)
        seen[:first] += 1
    ids, zeros = np.zeros(count, np.int64), np.zeros(count, np.float32)
    mean_boxes = (boxes / seen * np.tile((width, height), 2)).astype(np.float32)
    mean = Regions(width, height, mean_boxes, (features / seen).astype(np.float32), ids, zeros, ids, zeros)
    return ConstantRegions(source.dim, mean)


def _size(regions: Regions) -> tuple[int, int]:
    return regions.width, regions.height
