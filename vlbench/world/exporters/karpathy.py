"""Export captions of the synthetic world in Karpathy's split files and, for COCO, also in COCO's caption file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from vlbench.world.language.captions import PER_SCENE, caption_scene
from vlbench.world.output import ProgressCallback, write_json
from vlbench.world.rng import stream
from vlbench.world.scenes.images import ImagePlan
from vlbench.world.scenes.pools import COCO_SUBTYPES, Photograph, Photographs, collect_photographs
from vlbench.world.scenes.scene import SIDE, Scenes, Split

Part = Literal["train", "restval", "val", "test"]

_VAL = 100
"""Photographs in the split for model selection."""


@dataclass(frozen=True, slots=True)
class CaptionedPhotograph:
    """A photograph, its split, its part of Karpathy's file, and its captions."""

    photograph: Photograph
    split: Split
    part: Part
    sentences: tuple[str, ...]


def export_coco(folder: Path, scenes: Scenes, seed: int, plan: ImagePlan, progress: ProgressCallback) -> dict[str, int]:
    """Write `dataset_coco.json` and `annotations/captions_val2014.json`; return the number of captions per split."""
    entries = list(_caption_all(collect_photographs("coco", scenes, seed), seed, restval=True))
    write_json(folder / "dataset_coco.json", {"images": list(_karpathy(entries, "coco")), "dataset": "coco"})
    val2014 = [entry for entry in entries if COCO_SUBTYPES[entry.split] == "val2014"]
    write_json(folder / "annotations" / "captions_val2014.json", _coco(val2014))
    counts = _counts(entries)
    counts["train"] += counts.pop("restval", 0)
    return counts | {"test_1k": counts["test"], "val2014": PER_SCENE * len(val2014)}


def export_flickr30k(
    folder: Path, scenes: Scenes, seed: int, plan: ImagePlan, progress: ProgressCallback
) -> dict[str, int]:
    """Write `dataset_flickr30k.json`; return the number of captions per split."""
    entries = list(_caption_all(collect_photographs("flickr30k", scenes, seed), seed, restval=False))
    images = list(_karpathy(entries, "flickr30k"))
    write_json(folder / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    return _counts(entries)


def gallery(test: Sequence[Photograph]) -> list[Photograph]:
    """The photographs of the retrieval gallery: those that have a twin, then the twins."""
    twins = [photograph for photograph in test if photograph.twin_of]
    originals = {twin.twin_of for twin in twins}
    return [*(photograph for photograph in test if photograph.number in originals), *twins]


def _caption_all(photos: Photographs, seed: int, restval: bool) -> Iterator[CaptionedPhotograph]:
    dev = photos["dev"]
    parts: list[tuple[Split, Part, Sequence[Photograph]]] = [
        ("train", "train", photos["train"]),
        ("dev", "val", dev[:_VAL]),
        ("dev", "restval", dev[_VAL:] if restval else []),
        ("test1", "test", gallery(photos["test1"])),
    ]
    for split, part, photographs in parts:
        for photograph in photographs:
            captions = caption_scene(photograph.scene, stream(seed, "captions", photograph.name))
            yield CaptionedPhotograph(photograph, split, part, tuple(sentence for _, sentence in captions))


def _karpathy(
    entries: Sequence[CaptionedPhotograph], dataset: Literal["coco", "flickr30k"]
) -> Iterator[dict[str, object]]:
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


def _coco(entries: Sequence[CaptionedPhotograph]) -> dict[str, object]:
    """COCO's format; every eighth caption ends in a line feed, as some official ones do."""
    numbers = count(1)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for entry in entries:
        image, name = entry.photograph.number, entry.photograph.name
        size = {"height": SIDE, "width": SIDE, "date_captured": "", "flickr_url": ""}
        images.append({"license": 1, "file_name": f"{name}.jpg", "coco_url": "", **size, "id": image})
        for raw, number in zip(entry.sentences, numbers):  # noqa: B905 (numbers has no end)
            annotations.append({"image_id": image, "id": number, "caption": raw + "\n" * (number % 8 == 0)})
    info = {"description": "the built-in world of vlbench", "version": "1"}
    licences = [{"id": 1, "name": "CC0", "url": ""}]
    return {"info": info, "images": images, "licenses": licences, "annotations": annotations}


def _counts(entries: Sequence[CaptionedPhotograph]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry.part] += len(entry.sentences)
    return dict(counts)
