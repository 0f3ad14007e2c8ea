from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vlbench.core.domain import Domain
from vlbench.world.scenes.images import encode_png
from vlbench.world.scenes.render import render_scene, shape_mask
from vlbench.world.scenes.scene import SHAPES, Shape, make_scenes


def test_a_plain_image_shows_each_thing_as_one_component_of_one_colour() -> None:
    for scene in make_scenes("dev", 60, seed=0):
        pixels = render_scene(scene, "plain", seed=0)
        parts, count = ndimage.label((pixels != pixels[0, 0]).any(axis=2), structure=np.ones((3, 3)))
        boxes = {(x.start, y.start, x.stop, y.stop): n for n, (y, x) in enumerate(ndimage.find_objects(parts), 1)}
        assert count == len(scene.things)
        assert set(boxes) == {thing.box for thing in scene.things}
        for number in boxes.values():
            assert len(np.unique(pixels[parts == number], axis=0)) == 1


@pytest.mark.parametrize("domain", ["plain", "textured"])
def test_an_image_is_the_same_every_time_and_differs_by_seed(domain: Domain) -> None:
    scene = make_scenes("dev", 1, seed=0)[0]
    image = render_scene(scene, domain, seed=0)
    assert image.shape == (48, 48, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, render_scene(scene, domain, seed=0))
    assert (image != render_scene(scene, domain, seed=1)).any()


def test_the_textured_domain_has_many_tones_where_the_plain_one_has_few() -> None:
    scene = make_scenes("dev", 1, seed=0)[0]
    tones = {
        domain: len(np.unique(render_scene(scene, domain, 0).reshape(-1, 3), axis=0))
        for domain in ("plain", "textured")
    }
    assert tones["plain"] == 1 + len(scene.things)
    assert tones["textured"] > 30


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [7, 8, 12, 13])
def test_a_shape_touches_all_sides_of_its_box(shape: Shape, side: int) -> None:
    pixels = shape_mask(shape, side)
    assert pixels.shape == (side, side)
    assert pixels[-1].any() and pixels[0].any() and pixels[:, 0].any() and pixels[:, -1].any()
    np.testing.assert_array_equal(pixels, pixels[:, ::-1])


@pytest.mark.parametrize("shape", [(1, 1, 3), (48, 48, 3), (200, 150, 3)])  # the last needs two stored blocks
def test_png_files_are_read_back_by_others(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)
