"""The image-blind control shows nothing of any image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.data.images.controls import BLIND_KEY, BlindExamples, blind_resources
from vlbench.data.images.load import ImageFiles
from vlbench.data.regions.source import StoredRegions
from vlbench.data.regions.store import FeatureStore
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder

Make = Callable[..., Regions]


def text() -> TextEncoder:
    return TextEncoder.train(["a"], 20, 4)


def test_every_image_is_replaced_and_nothing_else() -> None:
    left, right = ImageRef(Path("l.png"), "l"), ImageRef(Path("r.png"), "r")
    examples = [
        Example("1", Query((left, right), "two"), Label("True"), "g", {"kind": "count"}),
        Example("2", Query((right,), "one"), Label("False"), "h"),
    ]
    blind = ImageRef(Path("blind.png"), BLIND_KEY)
    found = BlindExamples(examples, blind)
    assert [example.query.images for example in found] == [(blind, blind), (blind,)]
    for before, after in zip(examples, found, strict=True):
        assert (before.id, before.query.text, before.reference, before.group, before.tags) == (
            after.id,
            after.query.text,
            after.reference,
            after.group,
            after.tags,
        )


def test_constant_regions_are_the_mean_of_all(tmp_path: Path, regions: Make, image_file: Callable[..., Path]) -> None:
    counts = (2, 3, 5, 3)
    refs = [ImageRef(image_file(f"{n}.png", colour=(60 * n, 10, 0)), f"key {n}") for n in range(4)]
    rows = [(ref.key, regions(seed, count=count)) for seed, (ref, count) in enumerate(zip(refs, counts, strict=True))]
    store = FeatureStore.build(tmp_path / "store", rows, source="a test")
    found, blind = blind_resources(Resources(text(), ImageFiles(), StoredRegions([store])), refs, tmp_path / "controls")
    assert blind.key == BLIND_KEY and found.regions is not None and found.regions.dim == 5
    constant = found.regions.get(blind)
    assert found.regions.get(refs[0]) is constant
    assert len(constant.boxes) == round(sum(counts) / 4) == 3
    assert (constant.width, constant.height) == (102, 52)  # the means of 100 to 103 and 50 to 53, halves to even
    for place in range(3):
        having = [one for _, one in rows if len(one.boxes) > place]
        np.testing.assert_allclose(
            constant.features[place], np.mean([one.features[place] for one in having], axis=0), rtol=1e-5
        )
        shares = [one.boxes[place] / [one.width, one.height, one.width, one.height] for one in having]
        np.testing.assert_allclose(constant.boxes[place], np.mean(shares, axis=0) * [102, 52, 102, 52], rtol=1e-5)
    assert not constant.object_confidences.any() and not constant.object_ids.any()
    assert (np.asarray(Image.open(blind.path)) == (90, 10, 0)).all()


def test_the_order_of_the_images_does_not_matter(tmp_path: Path, image_file: Callable[..., Path]) -> None:
    refs = [ImageRef(image_file(f"many/{n}.png", colour=(n % 256, n // 4, 5)), f"key {n:03}") for n in range(510)]
    resources = Resources(text(), ImageFiles())
    one, first = blind_resources(resources, refs, tmp_path / "one")
    _, second = blind_resources(resources, refs[::-1], tmp_path / "two")
    assert one.regions is None
    assert first.path.read_bytes() == second.path.read_bytes()


def test_features_without_images_get_a_grey_one(tmp_path: Path, regions: Make) -> None:
    store = FeatureStore.build(tmp_path / "store", [("a", regions(0))], source="a test")
    resources = Resources(text(), ImageFiles(), StoredRegions([store]))
    found, blind = blind_resources(resources, [ImageRef(tmp_path / "absent.png", "a")], tmp_path)
    assert found.images.open(blind).getpixel((0, 0)) == (128, 128, 128)
