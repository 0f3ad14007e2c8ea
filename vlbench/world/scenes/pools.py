"""The image collections that tasks of the synthetic world share; file names follow the real collections.

A collection shows the scenes of the synthetic world, split by split. Its test part has twins: images that differ from
another one in a single attribute of a single thing, so that a model needs every word to tell their captions apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

from vlbench.world.rng import shuffled, stream
from vlbench.world.scenes.images import ImagePlan, SceneImage
from vlbench.world.scenes.scene import COLOURS, SHAPES, Scene, Scenes, Split, Thing

Pool = Literal["coco", "flickr30k", "gqa"]

COCO_SUBTYPES: dict[Split, str] = {"train": "train2014", "dev": "val2014", "test1": "val2014", "test2": "test2015"}
"""The part of COCO that stands for each split: the splits for selection and for reporting are both in val2014."""

SHARE: dict[Split, float] = {"train": 0.5, "dev": 1.0, "test1": 0.25, "test2": 0.25}
"""The fraction of each split's scenes that a collection shows."""

MAX_TWINS = 50
_FIRST_NUMBER: dict[Split, int] = {"train": 1, "dev": 100_001, "test1": 200_001, "test2": 300_001}


@dataclass(frozen=True, slots=True)
class Photograph:
    """A scene in a collection.

    number: its id in the collection. name: of its file, without suffix. twin_of: the number of the original, or 0.
    """

    scene: Scene
    number: int
    name: str
    twin_of: int = 0


Photographs = Mapping[Split, Sequence[Photograph]]


def collect_photographs(pool: Pool, scenes: Scenes, seed: int) -> Photographs:
    """The collection's photographs by split, ordered by number; the twins come last in `test1`."""
    by_split: dict[Split, list[Photograph]] = {}
    for split, share in SHARE.items():
        shown = scenes[split][: round(share * len(scenes[split]))]
        by_split[split] = [
            Photograph(scene, number, _name(pool, split, number))
            for number, scene in enumerate(shown, start=_FIRST_NUMBER[split])
        ]
    test = by_split["test1"]
    pairs = ((original, _twin(original.scene, stream(seed, "twin", original.scene.id))) for original in list(test))
    twins = ((original, scene) for original, scene in pairs if scene is not None)
    for original, scene in islice(twins, min(MAX_TWINS, -(-len(test) // 4))):
        number = _FIRST_NUMBER["test1"] + len(test)
        test.append(Photograph(scene, number, _name(pool, "test1", number), original.number))
    return by_split


def plan_pool(root: Path, pool: Pool, scenes: Scenes, seed: int, plan: ImagePlan) -> None:
    """Plan the collection's images and their region features below the root of the synthetic world."""
    for split, photographs in collect_photographs(pool, scenes, seed).items():
        images = [SceneImage(photo.scene, root / _file(pool, split, photo.name), photo.name) for photo in photographs]
        plan.add(root / pool / "features" / f"{split}.tsv", images)


def _name(pool: Pool, split: Split, number: int) -> str:
    match pool:
        case "coco":
            return f"COCO_{COCO_SUBTYPES[split]}_{number:012d}"
        case "flickr30k":
            return str(1_000_000_000 + number)
        case "gqa":
            return f"n{number}" if split in ("test1", "test2") else str(2_000_000 + number)


def _file(pool: Pool, split: Split, name: str) -> Path:
    """The path of the image below the root. It is a PNG despite its suffix; real archives have such files too."""
    folder = {"coco": COCO_SUBTYPES[split], "flickr30k": "flickr30k_images", "gqa": "images"}[pool]
    return Path(pool) / folder / f"{name}.jpg"


def _twin(scene: Scene, rng: Random) -> Scene | None:
    """The scene with one attribute of one thing changed and in the same split; None if no such change exists."""
    candidates = [
        replace(scene, id=f"{scene.id}-twin", things=(*scene.things[:row], variant, *scene.things[row + 1 :]))
        for row, thing in enumerate(scene.things)
        for variant in _variants(thing)
    ]
    return next((candidate for candidate in shuffled(rng, candidates) if candidate.split() == scene.split()), None)


def _variants(thing: Thing) -> Iterator[Thing]:
    """The thing with another shape or another colour; its size, which determines its box, stays."""
    yield from (replace(thing, shape=shape) for shape in SHAPES if shape != thing.shape)
    yield from (replace(thing, colour=colour) for colour in COLOURS if colour != thing.colour)
