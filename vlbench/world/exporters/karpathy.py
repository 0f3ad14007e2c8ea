"""The world's captions in Karpathy's files of splits and, for COCO, in COCO's own file of captions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from vlbench.core.domain import Domain
from vlbench.world.language.captions import PER_SCENE, captions
from vlbench.world.progress import Progress
from vlbench.world.rng import stream
from vlbench.world.scenes.pools import COCO_SUBTYPES, Photograph, Photographs, photographs
from vlbench.world.scenes.scene import SIDE, Scene, Split

Part = Literal["train", "restval", "val", "test"]

_VAL = 100
"""Photographs of the split that selects."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """A photograph, its part of the file, and its captions."""

    photograph: Photograph
    split: Split
    part: Part
    sentences: tuple[str, ...]


def export_coco(
    folder: Path, scenes: Mapping[Split, Sequence[Scene]], domain: Domain, seed: int, progress: Progress
) -> dict[str, int]:
    """Write `dataset_coco.json` and `annotations/captions_val2014.json`; captions per split of the task's card."""
    entries = list(_captioned(photographs("coco", scenes, seed), seed, restval=True))
    _write(folder / "dataset_coco.json", {"images": _karpathy(entries, "coco"), "dataset": "coco"})
    val2014 = [entry for entry in entries if COCO_SUBTYPES[entry.split] == "val2014"]
    _write(folder / "annotations" / "captions_val2014.json", _coco(val2014))
    counts = _counts(entries)
    counts["train"] += counts.pop("restval", 0)
    return counts | {"test_1k": counts["test"], "val2014": PER_SCENE * len(val2014)}


def export_flickr30k(
    folder: Path, scenes: Mapping[Split, Sequence[Scene]], domain: Domain, seed: int, progress: Progress
) -> dict[str, int]:
    """Write `dataset_flickr30k.json`; captions per split of the task's card."""
    entries = list(_captioned(photographs("flickr30k", scenes, seed), seed, restval=False))
    _write(folder / "dataset_flickr30k.json", {"images": _karpathy(entries, "flickr30k"), "dataset": "flickr30k"})
    return _counts(entries)


def gallery(test: Sequence[Photograph]) -> list[Photograph]:
    """The photographs that are searched: those that have a twin, then the twins."""
    twins = [one for one in test if one.twin_of]
    originals = {one.twin_of for one in twins}
    return [*(one for one in test if one.number in originals), *twins]


def _captioned(photos: Photographs, seed: int, restval: bool) -> Iterator[Captioned]:
    dev = photos["dev"]
    parts: list[tuple[Split, Part, Sequence[Photograph]]] = [
        ("train", "train", photos["train"]),
        ("dev", "val", dev[:_VAL]),
        ("dev", "restval", dev[_VAL:] if restval else []),
        ("test1", "test", gallery(photos["test1"])),
    ]
    for split, part, own in parts:
        for photograph in own:
            told = captions(photograph.scene, stream(seed, "captions", photograph.name))
            yield Captioned(photograph, split, part, tuple(sentence for _, sentence in told))


def _karpathy(entries: Sequence[Captioned], dataset: Literal["coco", "flickr30k"]) -> Iterator[dict[str, object]]:
    numbers = count()
    for imgid, entry in enumerate(entries):
        sentences = [
            {"tokens": re.findall(r"\w+", raw.lower()), "raw": raw, "imgid": imgid, "sentid": next(numbers)}
            for raw in entry.sentences
        ]
        image: dict[str, object] = {
            "sentids": [sentence["sentid"] for sentence in sentences],
            "imgid": imgid,
            "sentences": sentences,
            "split": entry.part,
            "filename": f"{entry.photograph.name}.jpg",
        }
        if dataset == "coco":
            image |= {"filepath": COCO_SUBTYPES[entry.split], "cocoid": entry.photograph.number}
        yield image


def _coco(entries: Sequence[Captioned]) -> dict[str, object]:
    """COCO's layout; captions end in a line feed here and there, as the official ones do."""
    numbers = count(1)
    annotations = [
        {
            "image_id": entry.photograph.number,
            "id": (number := next(numbers)),
            "caption": raw + "\n" * (number % 8 == 0),
        }
        for entry in entries
        for raw in entry.sentences
    ]
    images = [
        {
            "license": 1,
            "file_name": f"{entry.photograph.name}.jpg",
            "coco_url": "",
            "height": SIDE,
            "width": SIDE,
            "date_captured": "",
            "flickr_url": "",
            "id": entry.photograph.number,
        }
        for entry in entries
    ]
    info = {"description": "the built-in world of vlbench", "version": "1"}
    return {
        "info": info,
        "images": images,
        "licenses": [{"id": 1, "name": "CC0", "url": ""}],
        "annotations": annotations,
    }


def _counts(entries: Sequence[Captioned]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.part] = counts.get(entry.part, 0) + len(entry.sentences)
    return counts


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = {key: list(value) if isinstance(value, Iterator) else value for key, value in content.items()}
    path.write_text(json.dumps(listed) + "\n", encoding="utf-8", newline="\n")
