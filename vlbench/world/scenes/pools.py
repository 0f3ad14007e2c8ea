"""The picture collections that tasks of the world share, named as the real ones name their files.

A collection is made of the world's scenes, split by split. Its test part has twins: pictures that differ from one of
the first by a single attribute of a single thing, so that telling captions apart needs every word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

from vlbench.core.domain import Domain
from vlbench.data.regions.tsv import write_tsv
from vlbench.world.progress import Progress, counted
from vlbench.world.rng import shuffled, stream
from vlbench.world.scenes.images import Picture, make_pictures
from vlbench.world.scenes.scene import COLOURS, SHAPES, Scene, Split, Thing

Pool = Literal["coco", "flickr30k", "gqa"]

COCO_SUBTYPES: dict[Split, str] = {"train": "train2014", "dev": "val2014", "test1": "val2014", "test2": "test2015"}
"""Which part of COCO a split of the world plays: what selects and what is reported are both of val2014."""

SHARE: dict[Split, float] = {"train": 0.5, "dev": 1.0, "test1": 0.25, "test2": 0.25}
"""How much of each split's scenes a collection shows."""

MOST_TWINS = 50
_FIRST_NUMBER: dict[Split, int] = {"train": 1, "dev": 100_001, "test1": 200_001, "test2": 300_001}


@dataclass(frozen=True, slots=True)
class Photograph:
    """A scene in a collection. number: its id there. name: its file's, without suffix. twin_of: a number, or 0."""

    scene: Scene
    number: int
    name: str
    twin_of: int = 0


Photographs = Mapping[Split, Sequence[Photograph]]


def photographs(pool: Pool, scenes: Mapping[Split, Sequence[Scene]], seed: int) -> Photographs:
    """The collection's photographs by split, in the order of their numbers; the twins come last in `test1`."""
    found: dict[Split, list[Photograph]] = {}
    for split, share in SHARE.items():
        own = scenes[split][: round(share * len(scenes[split]))]
        first = _FIRST_NUMBER[split]
        found[split] = [
            Photograph(scene, first + row, _name(pool, split, first + row)) for row, scene in enumerate(own)
        ]
    test = found["test1"]
    wanted = min(MOST_TWINS, -(-len(test) // 4))
    pairs = ((one, _twin(one.scene, stream(seed, "twin", one.scene.id))) for one in list(test))
    for original, scene in islice(((one, scene) for one, scene in pairs if scene is not None), wanted):
        number = _FIRST_NUMBER["test1"] + len(test)
        test.append(Photograph(scene, number, _name(pool, "test1", number), original.number))
    return found


def export_pool(
    root: Path, pool: Pool, scenes: Mapping[Split, Sequence[Scene]], domain: Domain, seed: int, progress: Progress
) -> None:
    """Write the collection's pictures and the features of their regions below the world's root."""
    for split, own in photographs(pool, scenes, seed).items():
        pictures = [Picture(one.scene, root / _file(pool, split, one.name), one.name) for one in own]
        regions = counted(make_pictures(pictures, domain, seed), len(pictures), f"{pool}'s pictures, {split}", progress)
        write_tsv(root / pool / "features" / f"{split}.tsv", regions)


def _name(pool: Pool, split: Split, number: int) -> str:
    match pool:
        case "coco":
            return f"COCO_{COCO_SUBTYPES[split]}_{number:012d}"
        case "flickr30k":
            return str(1_000_000_000 + number)
        case "gqa":
            return f"n{number}" if split in ("test1", "test2") else str(2_000_000 + number)


def _file(pool: Pool, split: Split, name: str) -> Path:
    """Where the picture lies below the world's root. As in NLVR2's own archive the suffix does not tell the format."""
    folder = {"coco": COCO_SUBTYPES[split], "flickr30k": "flickr30k_images", "gqa": "images"}[pool]
    return Path(pool) / folder / f"{name}.jpg"


def _twin(scene: Scene, rng: Random) -> Scene | None:
    """The scene with one attribute of one thing changed, so that it stays in its split; None where no change does."""
    changed = [
        replace(scene, id=f"{scene.id}-twin", things=(*scene.things[:row], other, *scene.things[row + 1 :]))
        for row, thing in enumerate(scene.things)
        for other in _others(thing)
    ]
    return next((one for one in shuffled(rng, changed) if one.split() == scene.split()), None)


def _others(thing: Thing) -> Iterator[Thing]:
    """The thing with another shape or another colour; its size, which is its box, stays."""
    yield from (replace(thing, shape=shape) for shape in SHAPES if shape != thing.shape)
    yield from (replace(thing, colour=colour) for colour in COLOURS if colour != thing.colour)
