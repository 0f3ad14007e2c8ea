"""Image collections: names like the real ones, separate splits, twins that differ in one attribute."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vlbench.data.images.load import open_image
from vlbench.world.generate import TINY
from vlbench.world.scenes.pools import MAX_TWINS, Pool, collect_photographs
from vlbench.world.scenes.scene import SPLITS, make_scenes

SCENES = {split: make_scenes(split, TINY.sets(split) * 8, seed=0) for split in SPLITS}
MANY = {split: make_scenes(split, 1600, seed=0) for split in SPLITS}
NAMES: dict[Pool, str] = {
    "coco": r"COCO_(train2014|val2014|test2015)_\d{12}",
    "flickr30k": r"\d{10}",
    "gqa": r"\d{7}|n\d{6}",
}


@pytest.mark.parametrize("pool", NAMES)
def test_names_and_numbers_are_of_one_photograph(pool: Pool) -> None:
    everything = [photograph for own in collect_photographs(pool, SCENES, 0).values() for photograph in own]
    names, numbers = {photograph.name for photograph in everything}, {photograph.number for photograph in everything}
    assert len(names) == len(numbers) == len(everything)
    assert all(re.fullmatch(NAMES[pool], photograph.name) for photograph in everything)


def test_scenes_stay_in_their_split() -> None:
    for split, own in collect_photographs("coco", SCENES, 0).items():
        plain = [photograph for photograph in own if not photograph.twin_of]
        assert [photograph.scene for photograph in plain] == SCENES[split][: len(plain)]


def test_twins_differ_in_one_attribute_of_one_thing() -> None:
    own = collect_photographs("coco", MANY, 0)["test1"]
    twins = [photograph for photograph in own if photograph.twin_of]
    by_number = {photograph.number: photograph for photograph in own}
    assert len(twins) == MAX_TWINS and own[-MAX_TWINS:] == twins
    for twin in twins:
        original = by_number[twin.twin_of].scene
        changed = [pair for pair in zip(original.things, twin.scene.things, strict=True) if pair[0] != pair[1]]
        ((before, after),) = changed
        assert (before.cell, before.box, before.size) == (after.cell, after.box, after.size)
        assert (before.shape != after.shape) + (before.colour != after.colour) == 1
        assert twin.scene.split() == "test1"


@pytest.mark.parametrize(
    ("pool", "folder"), [("coco", "val2014"), ("flickr30k", "flickr30k_images"), ("gqa", "images")]
)
def test_the_images_are_there(tiny_world: Path, pool: Pool, folder: str) -> None:
    first = collect_photographs(pool, SCENES, 0)["dev"][0]
    assert open_image(tiny_world / pool / folder / f"{first.name}.jpg").size == (48, 48)
    assert sorted(path.name for path in (tiny_world / pool / "features").iterdir()) == [
        f"{split}.tsv" for split in sorted(SPLITS)
    ]
