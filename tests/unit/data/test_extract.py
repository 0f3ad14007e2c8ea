"""The weight-free extractor, against shapes drawn here and sums made pixel by pixel."""

from __future__ import annotations

import hashlib
import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vlbench.data.images.load import open_image
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.types import Regions

LIGHT = (240, 235, 230)
RED, GREEN, BLUE = (210, 40, 40), (40, 160, 60), (40, 90, 210)
MASK = slice(14, 50)


def canvas(height: int = 48, width: int = 48, colour: tuple[int, int, int] = LIGHT) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def shape_mask(shape: str, side: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[:side, :side] + 0.5
    if shape == "circle":
        return (x - side / 2) ** 2 + (y - side / 2) ** 2 <= (side / 2) ** 2
    return np.ones((side, side), bool) if shape == "square" else np.abs(x - side / 2) <= y / 2


def put(pixels: NDArray[np.uint8], shape: str, colour: tuple[int, int, int], x: int, y: int, side: int) -> None:
    pixels[y : y + side, x : x + side][shape_mask(shape, side)] = colour


def extract(pixels: NDArray[np.uint8]) -> Regions:
    return FlatExtractor()(pixels)


def test_one_region_per_object_largest_first_then_in_reading_order() -> None:
    pixels = canvas()
    put(pixels, "square", BLUE, 30, 2, 7)
    put(pixels, "square", RED, 3, 2, 7)
    put(pixels, "square", GREEN, 10, 20, 13)
    put(pixels, "square", RED, 3, 41, 7)
    found = extract(pixels)
    assert found.boxes.tolist() == [[10, 20, 23, 33], [3, 2, 10, 9], [30, 2, 37, 9], [3, 41, 10, 48]]
    assert (found.width, found.height) == (48, 48)
    assert found.features.shape == (4, 64) and found.features.dtype == np.float32
    assert found.object_ids.dtype == np.int64 and not found.object_confidences.any()


def test_specks_smoothed_edges_and_faint_texture_make_no_regions() -> None:
    pixels = canvas()
    put(pixels, "circle", RED, 10, 10, 13)
    pixels[40, 40:43] = (0, 0, 0)
    pixels[9, 12:20] = np.rint(np.mean([RED, LIGHT], axis=0))
    noisy = pixels + np.random.default_rng(0).integers(-4, 5, pixels.shape)
    assert len(extract(noisy.clip(0, 255).astype(np.uint8)).boxes) == 2  # the circle and its long soft edge
    pixels[9] = LIGHT
    noisy = pixels + np.random.default_rng(0).integers(-4, 5, pixels.shape)
    assert extract(noisy.clip(0, 255).astype(np.uint8)).boxes.tolist() == [[10, 10, 23, 23]]


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_each_channel_tells_parts_apart(channel: int) -> None:
    """A square that differs from its background in one channel; a background that fades in one is no plain colour."""
    colour, seen = [100, 100, 100], canvas(colour=(100, 100, 100))
    colour[channel] = 160
    put(seen, "square", (colour[0], colour[1], colour[2]), 10, 20, 9)
    assert extract(seen).boxes.tolist() == [[10, 20, 19, 29]]
    faded = canvas(colour=(100, 100, 100))
    faded[..., channel] = np.arange(48) * 4
    assert len(extract(faded).boxes) == 1 + 4 + 9 + 16


def test_panels_and_what_is_in_them_are_regions_and_the_gap_between_is_not() -> None:
    pixels = canvas(100, 400, (128, 128, 128))
    for x in (0, 150, 300):
        pixels[:, x : x + 100] = (211, 211, 211)
    put(pixels, "square", (0, 0, 0), 20, 80, 20)
    put(pixels, "circle", (0, 153, 255), 170, 30, 10)
    boxes = extract(pixels).boxes.tolist()
    assert boxes == [[300, 0, 400, 100], [150, 0, 250, 100], [0, 0, 100, 100], [20, 80, 40, 100], [170, 30, 180, 40]]


def test_real_nlvr_images_give_their_three_boxes_and_every_item(shared_data: Path) -> None:
    folder = shared_data / "nlvr1" / "dev"
    for text in (folder / "dev.json").read_text().splitlines()[::25]:
        line = json.loads(text)
        name = f"dev-{line['identifier']}-0.png"
        found = extract(np.asarray(open_image(folder / "images" / line["directory"] / name)))
        items = [(item, panel * 150) for panel, held in enumerate(line["structured_rep"]) for item in held]
        assert len(found.boxes) == 3 + len(items)
        for item, left in items:
            x, y, side = item["x_loc"] + left, item["y_loc"], item["size"]
            distance = np.abs(found.boxes[3:] - [x, y, x + side, y + side]).max(axis=1)
            assert distance.min() <= 2, (name, item)  # the thin tip of a triangle is smoothed away


def slow_description(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> list[float]:
    """One descriptor, pixel by pixel, in exact rationals where it matters little and floats where it does not."""
    height, width = mask.shape
    points = [(x, y) for y in range(height) for x in range(width) if mask[y, x]]
    colours = [[int(value) for value in pixels[y, x]] for x, y in points]
    n = len(points)
    means = [sum(colour[c] for colour in colours) / n for c in range(3)]
    spreads = [sqrt(sum((colour[c] - means[c]) ** 2 for colour in colours) / n) for c in range(3)]
    numbers = [mean / 255 for mean in means] + [2 * spread / 255 for spread in spreads]
    for corner in range(8):
        bits = (corner >> 2 & 1, corner >> 1 & 1, corner & 1)
        parts = [
            np.prod([value / 255 if bit else 1 - value / 255 for value, bit in zip(colour, bits, strict=True)])
            for colour in colours
        ]
        numbers.append(float(sum(parts)) / n)
    x1, y1 = min(x for x, _ in points), min(y for _, y in points)
    w, h = max(x for x, _ in points) + 1 - x1, max(y for _, y in points) + 1 - y1
    fine = np.kron(mask[y1 : y1 + h, x1 : x1 + w], np.ones((6, 6)))
    numbers += [fine[r * h : (r + 1) * h, c * w : (c + 1) * w].mean() for r in range(6) for c in range(6)]
    mass_x, mass_y = (sum(p[i] + 0.5 for p in points) / n for i in (0, 1))
    var_x = sum((x + 0.5 - mass_x) ** 2 for x, _ in points) / n
    var_y = sum((y + 0.5 - mass_y) ** 2 for _, y in points) / n
    numbers += [w / width, h / height, n / (width * height), sqrt(n / (width * height)), n / (w * h), w / (w + h)]
    numbers += [(x1 + w / 2) / width, (y1 + h / 2) / height, (mass_x - x1) / w, (mass_y - y1) / h]
    return [*numbers, 4 * var_x / w**2, 4 * var_y / h**2, max(w, h) / max(width, height), 1.0]


def test_descriptors_equal_those_made_pixel_by_pixel() -> None:
    pixels = canvas(40, 60)
    masks = []
    for shape, colour, x, y, side in (
        ("circle", RED, 3, 4, 13),
        ("triangle", BLUE, 30, 20, 11),
        ("square", GREEN, 45, 3, 7),
    ):
        mask = np.zeros((40, 60), bool)
        mask[y : y + side, x : x + side] = shape_mask(shape, side)
        shade = np.random.default_rng(side).integers(-6, 7, (40, 60, 3))
        pixels[mask] = (np.array(colour) + shade).clip(0, 255)[mask]
        masks.append(mask)
    found = extract(pixels)
    masks.sort(key=lambda mask: -int(mask.sum()))
    slow = np.array([slow_description(pixels, mask) for mask in masks])
    np.testing.assert_allclose(found.features, slow, atol=1e-6)


@pytest.mark.parametrize("side", [7, 8, 12, 13])
def test_shapes_are_linearly_separable_by_their_mask(side: int) -> None:
    rows, names = [], ["circle", "square", "triangle"]
    for number in range(30):
        pixels = canvas()
        put(pixels, names[number % 3], (RED, GREEN, BLUE)[number // 3 % 3], number, number // 2, side)
        rows.append(extract(pixels).features[0, MASK])
    inputs = np.column_stack([np.array(rows, dtype=np.float64), np.ones(30)])
    weights = np.linalg.lstsq(inputs[:15], np.eye(3)[np.arange(15) % 3], rcond=None)[0]
    assert ((inputs[15:] @ weights).argmax(axis=1) == np.arange(15) % 3).all()


def test_a_photograph_gets_itself_and_grids() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    found = extract(pixels)
    assert len(found.boxes) == 1 + 4 + 9 + 16
    assert found.boxes[0].tolist() == [0, 0, 120, 90]
    assert found.boxes[1:5].tolist() == [[0, 0, 60, 45], [60, 0, 120, 45], [0, 45, 60, 90], [60, 45, 120, 90]]
    luminance = pixels[45:, :60] @ np.array([0.299, 0.587, 0.114])
    fine = np.kron(luminance, np.ones((6, 6)))
    cells = np.array([fine[r * 45 : (r + 1) * 45, c * 60 : (c + 1) * 60].mean() for r in range(6) for c in range(6)])
    stretched = (cells - cells.min()) / (cells.max() - cells.min())
    np.testing.assert_allclose(found.features[3, MASK], stretched, atol=1e-6)
    np.testing.assert_allclose(found.features[3, :3], pixels[45:, :60].mean(axis=(0, 1)) / 255, atol=1e-6)
    assert found.features[:, 63].tolist() == [0.0] * 30


def test_a_large_photograph_is_looked_at_more_coarsely_but_measured_in_its_own_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1201, 3), dtype=np.uint8)
    found = extract(pixels)
    assert found.boxes[0].tolist() == [0, 0, 1201, 900]
    assert (found.width, found.height) == (1201, 900)


@pytest.mark.parametrize("height, width", [(1, 8), (1, 50), (3, 4), (48, 48)])
def test_there_is_always_a_region(height: int, width: int) -> None:
    assert extract(canvas(height, width)).boxes.tolist() == [[0, 0, width, height]]
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = extract(noise)
    assert 1 <= len(found.boxes) <= 36 and np.isfinite(found.features).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_at_most_36_regions_the_largest() -> None:
    pixels = canvas(100, 100)
    for number in range(49):
        side = 4 if number < 13 else 5
        put(pixels, "square", RED, 14 * (number % 7), 14 * (number // 7), side)
    sides = extract(pixels).boxes
    assert ((sides[:, 2] - sides[:, 0]) == 5).all() and len(sides) == 36


def test_numbers_stay_in_bounds_and_are_the_same_again() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        pixels = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        one, two = extract(pixels), extract(pixels.copy())
        assert one.features.min() >= 0 and one.features.max() <= 1
        assert one.features.tobytes() == two.features.tobytes() and one.boxes.tobytes() == two.boxes.tobytes()


def test_the_bits_of_a_known_image() -> None:
    """A golden number: it moves only together with the extractor's name, since stores are cached under it."""
    pixels = canvas()
    put(pixels, "circle", RED, 5, 6, 13)
    put(pixels, "triangle", BLUE, 30, 25, 12)
    features = extract(pixels).features
    assert FlatExtractor.name == "flat-1"
    assert hashlib.sha256(features.tobytes()).hexdigest() == GOLDEN


GOLDEN = "832aff1749cf106c532ce83ca02dfe7e57f1678cebc9828d3497a560ebfacc58"
