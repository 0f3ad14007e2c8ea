from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from vlbench.world.scenes.scene import SPLITS, Scene, Split, Thing, make_scenes, write_scenes


def test_no_two_splits_share_a_scene_whatever_the_seed() -> None:
    contents = {
        (seed, split): {s.content() for s in make_scenes(split, 150, seed)} for seed in (0, 1) for split in SPLITS
    }
    for (_, split), (_, other) in itertools.combinations(contents, 2):
        if split != other:
            for seed, other_seed in itertools.product((0, 1), repeat=2):
                assert not contents[seed, split] & contents[other_seed, other]


def test_content_forgets_the_jitter_and_the_id_but_nothing_else() -> None:
    thing = Thing("circle", "red", "big", (0, 0), (1, 1, 13, 13))
    moved = Thing("circle", "red", "big", (0, 0), (2, 3, 14, 15))
    elsewhere = Thing("circle", "red", "big", (0, 1), (17, 1, 29, 13))
    assert Scene("a", (thing,)).content() == Scene("b", (moved,)).content()
    assert Scene("a", (thing,)).content() != Scene("a", (elsewhere,)).content()


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_of_a_split_differ_and_begin_alike(split: Split) -> None:
    scenes = make_scenes(split, 120, seed=3)
    assert len({scene.content() for scene in scenes}) == len({scene.id for scene in scenes}) == 120
    assert make_scenes(split, 40, seed=3) == scenes[:40]
    assert make_scenes(split, 40, seed=4) != scenes[:40]


def test_things_stay_in_their_cells_and_apart() -> None:
    scenes = make_scenes("train", 300, seed=0)
    assert {len(scene.things) for scene in scenes} == {2, 3, 4, 5, 6}
    for thing in (thing for scene in scenes for thing in scene.things):
        (row, column), (x1, y1, x2, y2) = thing.cell, thing.box
        assert column * 16 + 1 <= x1 < x2 <= column * 16 + 15
        assert row * 16 + 1 <= y1 < y2 <= row * 16 + 15
        assert (x2 - x1 > 10) == (thing.size == "big")


def test_relations_follow_rows_and_columns() -> None:
    one = Thing("circle", "red", "big", (0, 2), (33, 1, 45, 13))
    other = Thing("square", "blue", "big", (1, 0), (1, 17, 13, 29))
    assert one.stands("right", other) and one.stands("above", other)
    assert not one.stands("left", other) and not one.stands("below", other)
    assert other.stands("left", one) and other.stands("below", one)
    assert not one.stands("right", one) and not one.stands("above", one)


def test_scenes_survive_their_file(tmp_path: Path) -> None:
    scenes = make_scenes("dev", 20, seed=0)
    write_scenes(tmp_path / "scenes" / "dev.jsonl", scenes)
    rows = [json.loads(line) for line in (tmp_path / "scenes" / "dev.jsonl").open()]
    assert rows == [json.loads(json.dumps(asdict(scene))) for scene in scenes]
