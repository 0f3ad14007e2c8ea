from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from vlbench.data.regions.tsv import read_tsv
from vlbench.world.exporters.nlvr2 import SCENES_PER_SET, make_sets
from vlbench.world.generate import FULL, TINY
from vlbench.world.language.statements import STATEMENT_KINDS, evaluate
from vlbench.world.scenes.scene import SPLITS, Scene, Split, make_scenes

Line = dict[str, object]


@pytest.fixture(scope="module")
def lines(tiny_world: Path) -> dict[Split, list[Line]]:
    folder = tiny_world / "nlvr2" / "data"
    return {split: [json.loads(line) for line in (folder / f"{split}.json").open()] for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_words_alone_and_pictures_alone_are_right_half_of_the_time(
    lines: dict[Split, list[Line]], split: Split
) -> None:
    labels = {by: defaultdict(list) for by in ("sentence", "images", "set and statement")}
    for line in lines[split]:
        _, number, _, position = str(line["identifier"]).split("-")
        labels["sentence"][line["sentence"]].append(line["label"])
        labels["images"][line["left_url"], line["right_url"]].append(line["label"])
        labels["set and statement"][number, position].append(line["label"])
    for groups in labels.values():
        assert all(group.count("True") * 2 == len(group) for group in groups.values())
    assert {len(group) for group in labels["set and statement"].values()} == {4}


def test_the_true_pairs_are_not_always_the_same_ones(lines: dict[Split, list[Line]]) -> None:
    true = defaultdict(set)
    for line in lines["train"]:
        _, number, place, position = str(line["identifier"]).split("-")
        if line["label"] == "True":
            true[number, position].add(place)
    assert len({frozenset(places) for places in true.values()}) == 6


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_has_its_share_of_every_split(split: Split) -> None:
    scenes = make_scenes(split, FULL.sets(split) * SCENES_PER_SET, seed=0)
    kinds = Counter(statement.kind for one in make_sets(split, scenes, seed=0) for statement in one.statements)
    assert set(kinds) == set(STATEMENT_KINDS) and len(STATEMENT_KINDS) >= 12
    assert all(0.05 <= count / kinds.total() <= 0.12 for count in kinds.values()), kinds


def test_the_solver_is_always_right() -> None:
    scenes = make_scenes("dev", 20 * SCENES_PER_SET, seed=1)
    for one in make_sets("dev", scenes, seed=1):
        for statement, truths in zip(one.statements, one.truths, strict=True):
            assert tuple(evaluate(statement, *pair) for pair in one.pairs) == truths


def test_each_scene_is_shown_once(lines: dict[Split, list[Line]], tiny_world: Path) -> None:
    for split in SPLITS:
        shown = [
            line[f"{side}_url"]
            for line in lines[split]
            if str(line["identifier"]).endswith("-0")
            for side in ("left", "right")
        ]
        assert sorted(shown, key=str) == sorted(
            f"world:{json.loads(line)['id']}" for line in (tiny_world / "scenes" / f"{split}.jsonl").open()
        )


def test_the_lines_have_the_official_fields(lines: dict[Split, list[Line]]) -> None:
    official = {"identifier", "sentence", "label", "left_url", "right_url", "writer", "validation", "synset", "query"}
    for split in SPLITS:
        extra = "directory" if split == "train" else "extra_validations"
        for line in lines[split]:
            assert set(line) == official | {"kind", extra}
            assert line["label"] in ("True", "False")
            assert line["kind"] in STATEMENT_KINDS
    assert lines["train"][0]["identifier"] == "train-0-0-0"
    assert {type(line["directory"]) for line in lines["train"]} == {int}


def test_the_official_real_file_has_the_same_fields(lines: dict[Split, list[Line]], shared_data: Path) -> None:
    with (shared_data / "nlvr2" / "dev.json").open(encoding="utf-8") as real:
        line = json.loads(real.readline())
    assert set(lines["dev"][0]) - {"kind"} == set(line)
    assert {name: type(value) for name, value in line.items()} == {name: type(lines["dev"][0][name]) for name in line}


@pytest.mark.parametrize("split", SPLITS)
def test_every_picture_lies_where_the_official_layout_has_it_and_has_regions(
    lines: dict[Split, list[Line]], tiny_world: Path, split: Split
) -> None:
    regions = dict(read_tsv(tiny_world / "nlvr2" / "features" / f"{split}.tsv"))
    scenes: dict[str, Scene] = {s.id: s for s in make_scenes(split, TINY.sets(split) * 8, seed=0)}
    expected = set()
    for line in lines[split]:
        stem = str(line["identifier"]).rsplit("-", 1)[0]
        folder = tiny_world / "nlvr2" / "images" / split / str(line.get("directory", ""))
        for slot, side in enumerate(("left", "right")):
            key = f"{stem}-img{slot}"
            expected.add(key)
            with Image.open(folder / f"{key}.png") as image:
                assert image.size == (48, 48)
            things = scenes[str(line[f"{side}_url"]).removeprefix("world:")].things
            assert sorted(map(tuple, regions[key].boxes.tolist())) == sorted(thing.box for thing in things)
            assert regions[key].features.shape == (len(things), 64)
    assert set(regions) == expected
    assert len(lines[split]) == TINY.sets(split) * 8
