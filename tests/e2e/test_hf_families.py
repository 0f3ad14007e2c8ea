"""Every family of transformers' models runs on two tasks in two modes, from folder to record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf

from vlbench.core.gallery import Gallery, galleries
from vlbench.data.images.load import open_image
from vlbench.engine.source import load_task
from vlbench.metrics.ranks import TOP

FAMILIES = (
    "ViltModel",
    "LxmertModel",
    "VisualBertModel",
    "FlavaModel",
    "BridgeTowerForImageAndTextRetrieval",
    "BlipForImageTextRetrieval",
    "CLIPModel",
    "SiglipModel",
    "Siglip2Model",
    "AlignModel",
    "AltCLIPModel",
    "ChineseCLIPModel",
    "VisionTextDualEncoderModel",
)
SHORT = ("--controls", "none", "--select-on", "none", "--steps", 2, "--batch-size", 8)
RANKING = {"BridgeTowerForImageAndTextRetrieval", "BlipForImageTextRetrieval", *FAMILIES[6:]}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_two_tasks_in_two_modes(
    make_hf: Callable[..., Path], vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path, architecture: str
) -> None:
    model = f"hf:{make_hf(architecture)}"
    second = ("coco_retrieval", "zero-shot") if architecture in RANKING else ("snli_ve", "probe")
    for task, mode, more in (("nlvr2", "finetune", SHORT), (*second, SHORT if second[1] == "probe" else ())):
        place = ("--data-root", tiny_world, "--output-path", tmp_path, "--quiet", "--limit", 8, *more)
        done = vlbench("run", "--task", task, "--model", model, "--mode", mode, *place)
        assert done.code == 0, done.err
        record = json.loads((done.run / "run.json").read_text())
        assert (record["status"], record["model"]["from_scratch"]) == ("done", False)
        assert record["model"]["load_report"]["absent"] == [] and record["results"]


def with_other_pictures(world: Path, place: Path) -> Path:
    """A copy of the world in which the sentences of SNLI-VE's test split have each other's pictures."""
    shutil.copytree(world, place)
    file = place / "snli_ve" / "snli_ve_test.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    pictures = [line["Flickr30K_ID"] for line in lines]
    moved = [line | {"Flickr30K_ID": picture} for line, picture in zip(lines, reversed(pictures), strict=True)]
    file.write_text("".join(json.dumps(line) + "\n" for line in moved))
    return place


@pytest.mark.parametrize("architecture", ["CLIPModel", "LxmertModel"])
def test_a_control_sees_nothing(
    make_hf: Callable[..., Path], vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path, architecture: str
) -> None:
    asked = ("run", "--task", "snli_ve", "--model", f"hf:{make_hf(architecture)}", "--mode", "probe", "--steps", 4)
    asked = (*asked, "--controls", "blind")
    seen = []
    for root in (tiny_world, with_other_pictures(tiny_world, tmp_path / "moved")):
        done = vlbench(*asked, "--data-root", root, "--output-path", tmp_path, "--quiet")
        assert done.code == 0, done.err
        rows = pd.read_parquet(done.run / "samples.parquet").sort_values("example_id")
        seen.append({control: part["confidence"].to_numpy() for control, part in rows.groupby("control")})
    assert np.abs(seen[0][""] - seen[1][""]).max() > 1e-3
    np.testing.assert_allclose(seen[0]["blind"], seen[1]["blind"], atol=1e-6)


def test_a_shortlist_by_embeddings_is_looked_at_pair_by_pair(
    make_hf: Callable[..., Path], vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path
) -> None:
    folder = make_hf("BlipForImageTextRetrieval")
    place = ("--data-root", tiny_world, "--output-path", tmp_path, "--quiet", "--limit", 8, "--rerank-k", 3)
    done = vlbench("run", "--task", "coco_retrieval", "--model", f"hf:{folder}", "--mode", "eval", *place)
    assert done.code == 0, done.err
    split = json.loads((done.run / "run.json").read_text())["task"]["split"]
    found = pd.read_parquet(done.run / "ranks.parquet")
    kept = set(found["query_id"])
    examples = [one for one in load_task("coco_retrieval", tiny_world).load(split) if one.id in kept]
    (gallery,) = galleries(examples)
    embedded, matched = blip_scores(folder, gallery)
    pictures = [ref.key for ref in gallery.images]
    assert len(found) == len(pictures) + len(gallery.texts)
    for row in found.itertuples():
        looking = row.direction == "i2t"
        names = gallery.text_ids if looking else pictures
        near, fit = (
            of[pictures.index(row.query_id)] if looking else of[:, gallery.text_ids.index(row.query_id)]
            for of in (embedded, matched)
        )
        order = sorted(range(len(names)), key=lambda place, near=near: -near[place])
        order = sorted(order[:3], key=lambda place, fit=fit: -fit[place]) + order[3:]
        assert list(row.top_ids) == [names[place] for place in order[:TOP]]


@torch.no_grad()
def blip_scores(folder: Path, gallery: Gallery) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What the library's own model scores every picture with every text, [N, M]: by embeddings, and as pairs."""
    model = hf.BlipForImageTextRetrieval.from_pretrained(folder).eval()
    eyes, words = hf.AutoImageProcessor.from_pretrained(folder), hf.AutoTokenizer.from_pretrained(folder)
    seen = eyes(images=[open_image(ref.path) for ref in gallery.images], return_tensors="pt")["pixel_values"]
    read = words(list(gallery.texts), padding=True, truncation=True, max_length=40, return_tensors="pt")
    read = {name: read[name] for name in ("input_ids", "attention_mask")}
    embedded = model(pixel_values=seen, **read, use_itm_head=False).itm_score
    count = len(gallery.texts)
    pairs = [model(pixel_values=one.expand(count, -1, -1, -1), **read).itm_score for one in seen]
    return embedded.numpy(), torch.stack([scores[:, 1] - scores[:, 0] for scores in pairs]).numpy()
