"""Regions from stores and from pixels, and the pool that makes them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.parallel import parallel_map
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.source import StoredRegions, extract_all
from vlbench.data.regions.store import FeatureStore
from vlbench.data.regions.types import Regions

Make = Callable[..., Regions]
Same = Callable[[Regions, Regions], None]


class Unwilling:
    """An extractor that must not be asked."""

    name = "flat-1"
    dim = 64

    def __call__(self, pixels: NDArray[np.uint8]) -> Regions:
        raise AssertionError("asked")


@pytest.fixture
def refs(tmp_path: Path) -> list[ImageRef]:
    found = []
    for number in range(80):
        pixels = np.full((12, 16, 3), 240, np.uint8)
        pixels[2:6, 1 + number % 8 : 6 + number % 8] = (number, 0, 0)
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        found.append(ImageRef(path, f"picture {number}"))
    return found


def test_the_first_store_that_has_it_then_the_extractor(
    tmp_path: Path, refs: list[ImageRef], regions: Make, same: Same
) -> None:
    one, two = regions(1, dim=64), regions(2, dim=64)
    first = FeatureStore.build(tmp_path / "first", [(refs[0].key, one)], source="first")
    second = FeatureStore.build(tmp_path / "second", [(refs[0].key, two), (refs[1].key, two)], source="second")
    source = StoredRegions([first, second], FlatExtractor())
    assert source.dim == 64
    same(source.get(refs[0]), one)
    same(source.get(refs[1]), two)
    same(source.get(refs[2]), FlatExtractor()(np.asarray(Image.open(refs[2].path))))
    assert source.get(refs[2]) is source.get(refs[2])
    with pytest.raises(DataError, match=r"no regions of 'picture 2' in .*first, .*second: .*vlbench data features"):
        StoredRegions([first, second]).get(refs[2])


def test_all_must_agree_on_the_width(tmp_path: Path, regions: Make) -> None:
    five = FeatureStore.build(tmp_path / "five", [("a", regions(0, dim=5))], source="five")
    six = FeatureStore.build(tmp_path / "six", [("a", regions(0, dim=6))], source="six")
    with pytest.raises(DataError, match=r"5 features per region in .*five and 6 in .*six"):
        StoredRegions([five, six])
    with pytest.raises(DataError, match=r"5 features per region in .*five and 64 in the extractor flat-1"):
        StoredRegions([five], FlatExtractor())
    with pytest.raises(DataError, match="no region features"):
        StoredRegions([])


def test_extract_all_equals_one_by_one_and_is_done_once(tmp_path: Path, refs: list[ImageRef], same: Same) -> None:
    calls: list[tuple[int, int]] = []
    store = extract_all(refs, FlatExtractor(), tmp_path / "cache", lambda done, total: calls.append((done, total)))
    assert list(store) == [ref.key for ref in refs] and store.dim == 64
    assert "flat-1" in (store.folder / "store.json").read_text()
    assert calls == [(done, 80) for done in range(1, 81)]
    for ref in refs[::7]:
        same(store.get(ref.key), FlatExtractor()(np.asarray(Image.open(ref.path))))
    assert extract_all(refs, Unwilling(), tmp_path / "cache").sha256 == store.sha256
    Image.new("RGB", (16, 12), "red").save(refs[3].path)
    changed = extract_all(refs, FlatExtractor(), tmp_path / "cache")
    assert changed.sha256 != store.sha256


@pytest.mark.skipif(os.name == "nt", reason="st_ctime is when the file was made")
def test_an_image_changed_at_equal_size_and_time_is_described_again(tmp_path: Path, refs: list[ImageRef]) -> None:
    path = tmp_path / "shades.ppm"
    chosen = [*refs[:2], ImageRef(path, "shades")]
    path.write_bytes(b"P6 4 4 255\n" + bytes(range(48)))
    before = extract_all(chosen, FlatExtractor(), tmp_path / "cache")
    seen = path.stat()
    while path.stat().st_ctime_ns == seen.st_ctime_ns:
        path.write_bytes(b"P6 4 4 255\n" + bytes(range(200, 248)))
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (seen.st_size, seen.st_mtime_ns)
    after = extract_all(chosen, FlatExtractor(), tmp_path / "cache")
    assert not np.array_equal(after.get("shades").features, before.get("shades").features)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_bad_image_is_named_and_nothing_is_left(
    tmp_path: Path, refs: list[ImageRef], damage: Callable[[Path], object]
) -> None:
    damage(refs[70].path)
    with pytest.raises(DataError, match=re.escape(str(refs[70].path))):
        extract_all(refs, FlatExtractor(), tmp_path / "cache")
    assert not [*tmp_path.glob("cache/regions/*"), *tmp_path.glob("cache/regions/.*")]


def halve(number: int) -> int:
    if number == 99:
        raise DataError("99 is odd")
    return number // 2


def die(number: int) -> int:
    os._exit(3)


def test_parallel_map_keeps_the_order_and_hands_errors_on() -> None:
    assert list(parallel_map(halve, range(90))) == [number // 2 for number in range(90)]
    assert list(parallel_map(halve, [])) == []
    with pytest.raises(DataError, match="99 is odd"):
        list(parallel_map(halve, range(200)))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has no workers")
def test_a_killed_worker_is_an_error_not_a_hang() -> None:
    with pytest.raises(VlbenchError, match="was killed"):
        list(parallel_map(die, range(100)))
