"""Fixtures of the tests of data: random regions and image files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlbench.data.regions.types import Regions


def make_regions(seed: int, count: int = 3, dim: int = 5) -> Regions:
    rng = np.random.default_rng(seed)
    return Regions(
        width=100 + seed,
        height=50 + seed,
        boxes=rng.uniform(0, 50, (count, 4)).astype(np.float32),
        features=rng.normal(size=(count, dim)).astype(np.float32),
        object_ids=rng.integers(0, 1600, count),
        object_confidences=rng.uniform(size=count).astype(np.float32),
        attribute_ids=rng.integers(0, 400, count),
        attribute_confidences=rng.uniform(size=count).astype(np.float32),
    )


def assert_same(one: Regions, other: Regions) -> None:
    assert (one.width, one.height) == (other.width, other.height)
    for name in ("boxes", "features", "object_ids", "object_confidences", "attribute_ids", "attribute_confidences"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@pytest.fixture
def regions() -> Callable[..., Regions]:
    return make_regions


@pytest.fixture
def same() -> Callable[[Regions, Regions], None]:
    return assert_same


@pytest.fixture
def image_file(tmp_path: Path) -> Callable[..., Path]:
    """Save an image of one colour, return its path."""

    def save(name: str, colour: tuple[int, int, int] = (10, 200, 30), size: tuple[int, int] = (8, 6)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path, format="PNG")
        return path

    return save
