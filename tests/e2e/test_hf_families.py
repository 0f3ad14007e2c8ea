"""Every family of transformers' models runs on two tasks in two modes, from folder to record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def test_a_control_sees_nothing(
    make_hf: Callable[..., Path], vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path
) -> None:
    for architecture in ("CLIPModel", "LxmertModel"):
        place = ("--data-root", tiny_world, "--output-path", tmp_path, "--quiet", "--limit", 20)
        model = ("--model", f"hf:{make_hf(architecture)}", "--mode", "probe", "--steps", 4)
        done = vlbench("run", "--task", "snli_ve", *model, *place)
        assert done.code == 0, done.err
        record = json.loads((done.run / "run.json").read_text())
        assert record["spec"]["controls"] == ["blind"] and record["controls"]["blind"][0]["metric"] == "accuracy"


def test_a_shortlist_by_embeddings_is_looked_at_pair_by_pair(
    make_hf: Callable[..., Path], vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path
) -> None:
    place = ("--data-root", tiny_world, "--output-path", tmp_path, "--quiet", "--limit", 8, "--rerank-k", 3)
    model = ("--model", f"hf:{make_hf('BlipForImageTextRetrieval')}", "--mode", "eval")
    done = vlbench("run", "--task", "coco_retrieval", *model, *place)
    assert done.code == 0, done.err
