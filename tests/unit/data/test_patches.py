"""Images cut into patches: sizes by the official rule, every pixel in its place, padding masked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlbench.data.images.patches import cut, fitted, stack


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (512, 384)),
        ((480, 640), (384, 512)),
        ((384, 384), (384, 384)),
        ((100, 100), (384, 384)),
        ((1000, 400), (608, 256)),  # the longer side bounds: 639 and 255.6, rounded, in whole patches of 32
        ((500, 333), (576, 384)),  # 576.58
        ((1, 1), (384, 384)),
        ((20_000, 10), (608, 32)),
    ],
)
def test_the_papers_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(*size, 384, 639, 32) == expected


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 64))
def test_sides_are_whole_patches_within_the_limits(width: int, height: int, patch: int) -> None:
    wide, high = fitted(width, height, 384, 639, patch)
    assert wide % patch == high % patch == 0 and min(wide, high) >= patch
    assert max(wide, high) <= 639 and min(wide, high) <= 384


def test_every_pixel_has_its_place() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    patches = cut(Image.fromarray(pixels), 48, 64, 16)
    assert (patches.rows, patches.columns, patches.places.tolist()) == (3, 4, list(range(12)))
    for place in range(12):
        top, left = 16 * (place // 4), 16 * (place % 4)
        for channel, y, x in ((0, 0, 0), (1, 3, 15), (2, 15, 7)):
            number = (channel * 16 + y) * 16 + x
            assert patches.pixels[place, number] == pixels[top + y, left + x, channel]


def test_a_resized_image_is_cut_after_resizing() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    resized = image.resize((80, 48), Image.Resampling.BICUBIC)
    assert fitted(40, 30, 60, 80, 16) == (80, 48)
    assert np.array_equal(cut(image, 60, 80, 16).pixels, cut(resized, 48, 80, 16).pixels)


def test_images_of_different_sizes_side_by_side() -> None:
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(1, 256, (*shape, 3), dtype=np.uint8)) for shape in ((32, 48), (32, 32))]
    parts = [cut(image, 32, 48, 16) for image in images]
    stacked = stack([parts[0], parts[1].take([1, 3])], 16)
    assert stacked.pixels.shape == (2, 6, 768) and stacked.grids.tolist() == [[2, 3], [2, 2]]
    assert stacked.mask.tolist() == [[True] * 6, [True] * 2 + [False] * 4]
    assert stacked.places.tolist() == [[0, 1, 2, 3, 4, 5], [1, 3, 0, 0, 0, 0]]
    assert np.array_equal(stacked.pixels[1, :2], parts[1].pixels[[1, 3]]) and not stacked.pixels[1, 2:].any()


def test_no_images_have_a_shape_too() -> None:
    stacked = stack([], 16)
    assert (stacked.pixels.shape, stacked.mask.shape, stacked.grids.shape) == ((0, 0, 768), (0, 0), (0, 2))
