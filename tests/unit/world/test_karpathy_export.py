"""The caption files have the official keys, and the gallery is photographs and their twins."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vlbench.world.exporters.karpathy import gallery
from vlbench.world.generate import TINY, world_info
from vlbench.world.language.captions import caption_scene
from vlbench.world.rng import stream
from vlbench.world.scenes.pools import collect_photographs
from vlbench.world.scenes.scene import SPLITS, make_scenes


def images(root: Path, task: str, file: str) -> list[dict[str, Any]]:
    content = json.loads((root / task / file).read_text())
    assert content.keys() == {"images", "dataset"}
    return content["images"]


@pytest.mark.parametrize("dataset", ["coco", "flickr30k"])
def test_karpathys_schema(tiny_world: Path, dataset: str) -> None:
    found = images(tiny_world, f"{dataset}_retrieval", f"dataset_{dataset}.json")
    keys = {"sentids", "imgid", "sentences", "split", "filename"} | (
        {"filepath", "cocoid"} if dataset == "coco" else set()
    )
    assert all(image.keys() == keys for image in found)
    assert [image["imgid"] for image in found] == list(range(len(found)))
    sentences = [sentence for image in found for sentence in image["sentences"]]
    assert [sentence["sentid"] for sentence in sentences] == list(range(5 * len(found)))
    assert all(sentence.keys() == {"tokens", "raw", "imgid", "sentid"} for sentence in sentences)
    assert all(image["sentids"] == [sentence["sentid"] for sentence in image["sentences"]] for image in found)
    assert all(token.isalnum() and token == token.lower() for sentence in sentences for token in sentence["tokens"])
    counts = Counter(image["split"] for image in found)
    told = world_info(tiny_world).counts[f"{dataset}_retrieval"]
    assert told["train"] == 5 * (counts["train"] + counts["restval"])
    assert (told["val"], told["test"]) == (5 * counts["val"], 5 * counts["test"])


def test_the_gallery_is_half_twins() -> None:
    scenes = {split: make_scenes(split, 1600, 0) for split in SPLITS}
    found = gallery(collect_photographs("flickr30k", scenes, 0)["test1"])
    assert len(found) == 100
    assert [one.twin_of for one in found[50:]] == [one.number for one in found[:50]]


def test_a_twins_full_lists_do_not_fit_its_original() -> None:
    scenes = {split: make_scenes(split, 400, 0) for split in SPLITS}
    found = gallery(collect_photographs("coco", scenes, 0)["test1"])
    originals = {one.number: one.scene for one in found if not one.twin_of}
    twins = [one for one in found if one.twin_of]
    assert len(twins) == len(originals)
    for twin in twins:
        captions = caption_scene(twin.scene, stream(0, "captions", twin.name))
        assert [claims.fit(originals[twin.twin_of]) for claims, _ in captions[:2]] == [False, False]


def test_a_tiny_worlds_counts(tiny_world: Path) -> None:
    """96 photographs to train on, 96 to select by, of which none is left for `restval`; a gallery of 6 and 6 twins."""
    counts = world_info(tiny_world).counts
    assert counts["flickr30k_retrieval"] == {"train": 480, "val": 480, "test": 60}
    assert counts["coco_retrieval"] == {"train": 480, "val": 480, "test": 60, "test_1k": 60, "val2014": 540}


def test_cocos_own_schema(tiny_world: Path) -> None:
    content = json.loads((tiny_world / "coco_retrieval" / "annotations" / "captions_val2014.json").read_text())
    assert content.keys() == {"info", "images", "licenses", "annotations"}
    assert all(one.keys() == {"image_id", "id", "caption"} for one in content["annotations"])
    known = {image["id"] for image in content["images"]}
    assert len({one["id"] for one in content["annotations"]}) == 5 * len(known)
    assert {one["image_id"] for one in content["annotations"]} == known
    assert any(one["caption"].endswith("\n") for one in content["annotations"])
    captions = {one["caption"].strip() for one in content["annotations"]}
    karpathy = images(tiny_world, "coco_retrieval", "dataset_coco.json")
    tested = {
        sentence["raw"].strip() for image in karpathy if image["split"] == "test" for sentence in image["sentences"]
    }
    assert tested <= captions
    assert TINY.test1 * 8 * 0.25 <= len(known)
