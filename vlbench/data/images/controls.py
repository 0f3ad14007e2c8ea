"""The image-blind control (`blind`): the same run with every image replaced by one uninformative image."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from vlbench.core.columns import Columns, LazyExamples, columns_of, queries_at, take
from vlbench.core.examples import Example, Examples, ImageRef, Query
from vlbench.data.cache.folder import atomic_write
from vlbench.data.images.load import mean_image
from vlbench.data.regions.types import Regions, RegionSource
from vlbench.data.resources import Resources

BLIND_KEY = "blind"
_SAMPLE = 500
"""Images that a mean is taken over."""


class BlindExamples(LazyExamples):
    """The same examples with every image replaced by `blind`; the number of images stays the same."""

    def __init__(self, examples: Examples, blind: ImageRef) -> None:
        self.examples, self.blind = examples, blind

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def columns(self) -> Columns[object]:
        return columns_of(self.examples)

    @property
    def refs(self) -> Iterable[ImageRef]:
        return (self.blind,)

    def take(self, rows: Sequence[int]) -> list[Example[object]]:
        return [replace(example, query=self._blinded(example.query)) for example in take(self.examples, rows)]

    def queries(self, rows: Sequence[int]) -> list[Query]:
        return list(map(self._blinded, queries_at(self.examples, rows)))

    def _blinded(self, query: Query) -> Query:
        return Query((self.blind,) * len(query.images), query.text)


def blind_resources(resources: Resources, refs: Sequence[ImageRef], folder: Path) -> tuple[Resources, ImageRef]:
    """Return resources without information about any image, and the reference to the image that replaces all others.

    The means are taken over a seeded sample of at most 500 of `refs`, the images of the real run. The mean image is
    written to `folder` as `blind.png`; it is plain grey if no image of the sample exists (a data set of features only):
    no model reads it. Raises DataError if an image or its regions cannot be read, or the folder cannot be written.
    """
    ordered = sorted(refs, key=lambda ref: ref.key)
    sample = random.Random(0).sample(ordered, min(_SAMPLE, len(ordered)))
    paths = [ref.path for ref in sample if ref.path.exists()]
    image = mean_image(paths) if paths else Image.new("RGB", (64, 64), (128, 128, 128))
    blind = ImageRef(folder / "blind.png", BLIND_KEY)
    content = io.BytesIO()
    image.save(content, format="PNG")
    atomic_write(blind.path, content.getvalue())
    if resources.regions is None:
        return resources, blind
    return replace(resources, regions=constant_regions(resources.regions, sample)), blind


@dataclass
class ConstantRegions:
    """A RegionSource that returns the same regions for every image."""

    dim: int
    regions: Regions

    def get(self, ref: ImageRef) -> Regions:
        return self.regions


def constant_regions(source: RegionSource, refs: Sequence[ImageRef]) -> ConstantRegions:
    """Return the mean of the images' regions.

    Their number N is the rounded mean number of regions. Features [N, D] and boxes [N, 4] of region n are the means
    over the n-th regions of all images, boxes relative to the image size. Labels and confidences are 0. Raises
    DataError if the source has no regions for an image.
    """
    all_regions = [source.get(ref) for ref in refs]
    count = round(sum(len(regions.boxes) for regions in all_regions) / len(all_regions))
    width, height = (round(sum(sides) / len(refs)) for sides in zip(*map(_size, all_regions), strict=True))
    features, boxes = np.zeros((count, source.dim)), np.zeros((count, 4))
    images_with_region = np.zeros((count, 1))
    for regions in all_regions:
        first = min(count, len(regions.boxes))
        features[:first] += regions.features[:first]
        boxes[:first] += regions.boxes[:first] / np.tile(_size(regions), 2)
        images_with_region[:first] += 1
    ids, zeros = np.zeros(count, np.int64), np.zeros(count, np.float32)
    mean_boxes = (boxes / images_with_region * np.tile((width, height), 2)).astype(np.float32)
    mean = Regions(
        width, height, mean_boxes, (features / images_with_region).astype(np.float32), ids, zeros, ids, zeros
    )
    return ConstantRegions(source.dim, mean)


def _size(regions: Regions) -> tuple[int, int]:
    return regions.width, regions.height
