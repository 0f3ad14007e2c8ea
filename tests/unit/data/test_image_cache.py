"""Resized images in the cache: the same pixels, computed once, and never those of another file or preprocessing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlbench.core.examples import ImageRef
from vlbench.data.images import image_cache, load
from vlbench.data.images.image_cache import ImageCache, resized
from vlbench.data.images.load import ImageFiles


@pytest.fixture
def ref(tmp_path: Path) -> ImageRef:
    return draw(tmp_path / "a.png", 0)


def draw(path: Path, seed: int) -> ImageRef:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return ImageRef(path, path.stem)


def half(width: int, height: int) -> tuple[int, int]:
    return width // 2, height // 2


def third(width: int, height: int) -> tuple[int, int]:
    return width // 3, height // 3


def test_the_same_pixels(ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = resized(ImageFiles(), ref, half, "bicubic half")
    expected = np.asarray(Image.open(ref.path).resize((30, 20), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(plain, expected)
    cache = ImageCache(tmp_path / "images", 1 << 20)
    np.testing.assert_array_equal(resized(cache, ref, half, "bicubic half"), plain)
    monkeypatch.setattr(load, "open_image", None)  # a second decoding would fail
    np.testing.assert_array_equal(resized(ImageCache(tmp_path / "images", 0), ref, half, "bicubic half"), plain)


def test_another_rule_and_another_file_are_other_entries(ref: ImageRef, tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images", 1 << 20)
    first = resized(cache, ref, half, "bicubic half")
    assert resized(cache, ref, third, "bicubic third").shape == (13, 20, 3)
    assert not np.array_equal(resized(cache, ref, half, "bilinear half"), first)
    draw(ref.path, 1)  # the same name with other content
    assert not np.array_equal(resized(cache, ref, half, "bicubic half"), first)
    assert len(list((tmp_path / "images").glob("??/*.npy"))) == 4


def test_a_damaged_entry_is_made_again(ref: ImageRef, tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images", 1 << 20)
    first = resized(cache, ref, half, "bicubic half")
    (entry,) = (tmp_path / "images").glob("??/*.npy")
    entry.write_bytes(entry.read_bytes()[:100])
    np.testing.assert_array_equal(resized(cache, ref, half, "bicubic half"), first)
    assert np.load(entry).shape == first.shape


def test_the_limit_holds(tmp_path: Path) -> None:
    refs = [draw(tmp_path / f"{number}.png", number) for number in range(4)]
    cache = ImageCache(tmp_path / "images", 2 * 20 * 30 * 3 + 300)
    for ref in refs:
        resized(cache, ref, half, "bicubic half")
    assert len(list((tmp_path / "images").glob("??/*.npy"))) == 2


def test_the_limit_holds_for_processes_that_share_the_cache(tmp_path: Path) -> None:
    processes = [ImageCache(tmp_path / "images", 3 * 20 * 30 * 3 + 1_000) for _ in range(2)]
    for number in range(6):
        resized(processes[number % 2], draw(tmp_path / f"{number}.png", number), half, "bicubic half")
    assert len(list((tmp_path / "images").glob("??/*.npy"))) == 3


def test_entries_are_measured_once_and_again_after_the_cache_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Path] = []

    def measure(path: Path) -> int:
        measured.append(path)
        return path.stat().st_size

    monkeypatch.setattr(image_cache, "_size", measure)
    folder, refs = tmp_path / "images", [draw(tmp_path / f"{number}.png", number) for number in range(8)]
    resized(ImageCache(folder, 1 << 20), refs[0], half, "bicubic half")
    cache = ImageCache(folder, 2 * 20 * 30 * 3 + 300)
    for ref in refs:
        resized(cache, ref, half, "bicubic half")
    assert len(measured) == 1 and len(list(folder.glob("??/*.npy"))) == 2
    shutil.rmtree(folder)
    for ref in refs:
        resized(cache, ref, half, "bicubic half")
    assert len(measured) == 1 and len(list(folder.glob("??/*.npy"))) == 2
