"""The regions of a slow extractor are cached image by image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef
from vlbench.data.regions.region_cache import extract_each
from vlbench.data.regions.types import Regions

Same = Callable[[Regions, Regions], None]


class Counting:
    """Makes regions of a image's first pixel, and counts."""

    dim = 5

    def __init__(self, make: Callable[..., Regions], name: str = "counting-1", ends_after: int = 99) -> None:
        self.make, self.name, self.left, self.calls = make, name, ends_after, 0

    def __call__(self, pixels: NDArray[np.uint8]) -> Regions:
        if self.calls == self.left:
            raise KeyboardInterrupt
        self.calls += 1
        return self.make(int(pixels[0, 0, 0]))


@pytest.fixture
def refs(image_file: Callable[..., Path]) -> list[ImageRef]:
    return [ImageRef(image_file(f"{shade}.png", (shade, 0, 0)), f"key{shade}") for shade in (1, 2, 3)]


def test_what_was_interrupted_goes_on(
    refs: list[ImageRef], regions: Callable[..., Regions], same: Same, tmp_path: Path
) -> None:
    first, second, calls = Counting(regions, ends_after=2), Counting(regions), []
    with pytest.raises(KeyboardInterrupt):
        list(extract_each(refs, first, tmp_path / "cache"))
    rows = list(extract_each(refs, second, tmp_path / "cache", lambda done, total: calls.append((done, total))))
    assert (first.calls, second.calls) == (2, 1)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert [key for key, _ in rows] == ["key1", "key2", "key3"]
    for shade, (_, found) in zip((1, 2, 3), rows, strict=True):
        same(found, regions(shade))


def test_the_content_of_a_file_counts_and_the_extractor(
    refs: list[ImageRef], regions: Callable[..., Regions], image_file: Callable[..., Path], tmp_path: Path
) -> None:
    extractor = Counting(regions)
    moved = ImageRef(Path(shutil.copy(refs[0].path, tmp_path / "elsewhere.png")), "other key")
    rows = dict(extract_each([refs[0], moved], extractor, tmp_path / "cache"))
    assert (list(rows), extractor.calls) == (["key1", "other key"], 1)
    image_file(refs[0].path.name, (77, 0, 0))
    ((_, changed),) = extract_each(refs[:1], extractor, tmp_path / "cache")
    assert (changed.width, extractor.calls) == (177, 2)
    other = Counting(regions, "counting-2")
    list(extract_each(refs, other, tmp_path / "cache"))
    assert other.calls == 3


def test_damaged_ones_are_made_anew(refs: list[ImageRef], regions: Callable[..., Regions], tmp_path: Path) -> None:
    extractor = Counting(regions)
    list(extract_each(refs, extractor, tmp_path / "cache"))
    kept = sorted((tmp_path / "cache" / "regions").rglob("*.tsv"))
    assert len(kept) == 3
    kept[0].write_bytes(kept[0].read_bytes()[:50])
    kept[1].write_bytes(b"")
    list(extract_each(refs, extractor, tmp_path / "cache"))
    assert extractor.calls == 5


def test_a_image_that_is_not_there(refs: list[ImageRef], regions: Callable[..., Regions], tmp_path: Path) -> None:
    refs[1].path.unlink()
    with pytest.raises(DataError, match=r"2\.png"):
        list(extract_each(refs, Counting(regions), tmp_path / "cache"))
