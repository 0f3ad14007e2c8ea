"""RandAugment: each change against what it is by definition, the official strengths, randomness from one generator."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from vlbench.data.images import augment
from vlbench.data.images.augment import OPERATIONS, drawn_size, randaugment


@pytest.fixture
def image() -> Image.Image:
    smooth = np.add.outer(np.arange(24) * 5, np.arange(32) * 4)[..., None] + np.array([0, 10, 20])
    return Image.fromarray(smooth.clip(0, 255).astype(np.uint8))


def changed(name: str, image: Image.Image, strength: float, seed: int = 0) -> np.ndarray:
    return np.asarray(OPERATIONS[name][0](image, strength, Random(seed))).astype(int)


def test_the_official_table() -> None:
    assert len(OPERATIONS) == 14 and not {"invert", "cutout"} & OPERATIONS.keys()
    assert {name: (low, high) for name, (_, low, high) in OPERATIONS.items() if high > 1.9} == {
        "rotate": (0, 30),
        "posterize": (0, 4),
        "solarize": (0, 256),
        "solarize_add": (0, 110),
        "translate_x": (0, 100),
        "translate_y": (0, 100),
    }


def test_levels_are_cut_inverted_and_brightened(image: Image.Image) -> None:
    levels = np.asarray(image).astype(int)
    assert np.array_equal(changed("posterize", image, 2.5), levels & 0b11000000)
    assert np.array_equal(changed("posterize", image, 0.0), levels & 0b10000000)
    assert np.array_equal(changed("solarize", image, 100.0), np.where(levels < 100, levels, 255 - levels))
    brighter = np.minimum(levels + 33, 255)
    assert np.array_equal(changed("solarize_add", image, 33.0), np.where(brighter < 128, brighter, 255 - brighter))
    assert np.allclose(changed("brightness", image, 0.5), levels * 0.5, atol=1)
    assert np.array_equal(changed("color", image, 1.0), levels)
    stretched = changed("auto_contrast", image, 0.0)
    assert all(stretched[..., channel].min() == 0 and stretched[..., channel].max() >= 254 for channel in range(3))


def test_moves_go_either_way_and_bring_in_black(image: Image.Image) -> None:
    levels, seen = np.asarray(image).astype(int), set()
    for seed in range(8):
        moved = changed("translate_x", image, 4.0, seed)
        left, right = np.zeros_like(levels), np.zeros_like(levels)
        left[:, :-4], right[:, 4:] = levels[:, 4:], levels[:, :-4]
        assert np.array_equal(moved, left) or np.array_equal(moved, right)
        seen.add(np.array_equal(moved, left))
    assert seen == {True, False}
    down = changed("translate_y", image, 3.0, 1)
    assert not down[:3].any() or not down[-3:].any()
    sheared = changed("shear_x", image, 0.3)
    assert np.array_equal(sheared[0], levels[0]) and not np.array_equal(sheared[-1], levels[-1])
    assert not np.array_equal(changed("rotate", image, 9.0), levels)


@pytest.mark.parametrize("way", [1, -1])
def test_a_shear_moves_rows_along_themselves_the_further_the_lower(way: int) -> None:
    """A white line in column 20 leans by a quarter of a pixel per row; the other axis is the same, mirrored."""
    levels = np.zeros((24, 40, 3), np.uint8)
    levels[:, 20] = 255
    upright, lying = Image.fromarray(levels), Image.fromarray(levels.transpose(1, 0, 2))
    seed = next(seed for seed in range(9) if (Random(seed).random() < 0.5) == (way == 1))
    leaning = changed("shear_x", upright, 0.25, seed)[..., 0]
    assert (leaning > 0).sum(axis=1).tolist() == [1] * 24
    assert np.abs(leaning.argmax(axis=1) - (20 - way * 0.25 * np.arange(24))).max() <= 1
    assert np.array_equal(changed("shear_y", lying, 0.25, seed)[..., 0], leaning.T)


def test_moves_along_both_axes_are_the_same_mirrored(image: Image.Image) -> None:
    mirrored = image.transpose(Image.Transpose.TRANSPOSE)
    for seed in range(4):
        for name, strength in (("translate", 5.0), ("shear", 0.2)):
            across, down = changed(f"{name}_x", image, strength, seed), changed(f"{name}_y", mirrored, strength, seed)
            assert np.array_equal(across.transpose(1, 0, 2), down)


def test_changes_are_drawn_evenly_with_the_strength_asked_for(
    image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, float]] = []

    def noted(name: str) -> augment.Operation:
        return lambda image, strength, rng: (calls.append((name, strength)), image)[1]

    table = {name: (noted(name), low, high) for name, (_, low, high) in OPERATIONS.items()}
    monkeypatch.setattr(augment, "OPERATIONS", table)
    rng = Random(0)
    for _ in range(700):
        randaugment(image, rng)
    counts = Counter(name for name, _ in calls)
    assert len(calls) == 1400 and len(counts) == 14 and max(counts.values()) < 150 and min(counts.values()) > 60
    for name, strength in calls:
        _, low, high = OPERATIONS[name]
        assert strength == pytest.approx(low + 0.3 * (high - low))


def test_one_random_generator_decides_all(image: Image.Image) -> None:
    results = [np.asarray(randaugment(image, Random(seed))).tobytes() for seed in (1, 1, *range(2, 12))]
    assert results[0] == results[1] and len(set(results)) > 5
    assert randaugment(image, Random(3)).size == image.size


def test_the_smallest_image_survives_everything() -> None:
    for name in OPERATIONS:
        assert changed(name, Image.new("RGB", (1, 1), "red"), OPERATIONS[name][2]).shape == (1, 1, 3)


def test_short_sides_are_drawn_evenly_between_both_ends() -> None:
    """640 x 480, from 400 to 800: 401 heights, each about 50 times in 20,000, by a chi-squared test."""
    rng = Random(0)
    sizes = [drawn_size(640, 480, 400, 800, 1333, rng) for _ in range(20_000)]
    counts = Counter(height for _, height in sizes)
    assert set(counts) == set(range(400, 801))
    assert chisquare([*counts.values()]).pvalue > 0.001
    assert all(width == round(height * 4 / 3) for width, height in sizes)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (2000, 100, (1333, 67)),  # 1333 / 2000 of both sides
        (100, 2000, (67, 1333)),
        (1, 1, (400, 400)),
        (5000, 1, (1333, 1)),
        (333, 400, (400, 480)),
    ],
)
def test_long_sides_are_limited_and_proportions_kept(width: int, height: int, expected: tuple[int, int]) -> None:
    assert drawn_size(width, height, 400, 400, 1333, Random(0)) == expected
