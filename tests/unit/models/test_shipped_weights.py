"""Weights that come with a model: small, whole, and made by the command in their card."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from vlbench import catalog
from vlbench.core.cards import Recipe
from vlbench.engine.pretraining.pretrain import used
from vlbench.records.folder import read_run
from vlbench.world.generate import FULL, ensure_world

Call = Callable[..., Any]
SHIPPED = sorted(path for folder in catalog.model_folders().values() for path in folder.glob("*.safetensors"))
every_one = pytest.mark.parametrize("weights", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")


def card_of(weights: Path) -> dict[str, Any]:
    return json.loads(weights.with_suffix(".json").read_text(encoding="utf8"))


def test_there_are_some() -> None:
    assert {"brivl", "cvlp", "lxmert", "soho", "vilt"} <= {path.parent.name for path in SHIPPED}


@every_one
def test_small_and_with_a_card(weights: Path) -> None:
    assert weights.stat().st_size <= 3 * 2**20
    card = card_of(weights)
    assert (card["model"], card["size"], card["data"]) == (weights.parent.name, weights.stem, "world")
    assert all(value == value for value in card["losses"].values()) and card["losses"]
    model = catalog.model_card(card["model"])
    recipe = used(model.recipe("pretrain", card["size"]))
    assert used(Recipe.model_validate(card["spec"]["train"])) == recipe, "the card's command must still do the same"
    assert {**card["settings"], **model.sizes[card["size"]].pretraining} == card["settings"]
    assert shlex.split(card["command"])[:4] == ["vlbench", "pretrain", "--model", card["model"]]


@every_one
def test_a_run_on_the_world_begins_with_them(weights: Path, vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    task = "nlvr2" if "pair" in catalog.model_card(weights.parent.name).outputs else "flickr30k_retrieval"
    command = [
        "run", "--task", task, "--model", weights.parent.name, "--data-root", tiny_world, "--steps", 1,
        "--controls", "none", "--output-path", tmp_path / "runs", "--quiet",
    ]  # fmt: skip
    record = read_run(vlbench(*command).run)
    assert record.spec.checkpoint == "shipped" and not record.model.from_scratch and record.model.weights_sha256
    report = record.model.load_report
    backbone = sum(name.startswith("backbone.") for name in load_file(weights))
    assert report is not None and report.matched >= backbone and report.unexpected == 0
    plain = read_run(vlbench(*command, "--checkpoint", "none").run)
    assert plain.model.from_scratch and plain.fingerprint != record.fingerprint


@pytest.mark.slow
@every_one
def test_the_cards_command_makes_them_again(weights: Path, vlbench: Call, tmp_path: Path) -> None:
    """The same losses, within what threads and machines change."""
    ensure_world(tmp_path, size=FULL)
    card = card_of(weights)
    done = vlbench(*shlex.split(card["command"])[1:], "--output-path", tmp_path / "pretrained", "--quiet")
    again = json.loads((Path(done.out.strip()) / "card.json").read_text(encoding="utf8"))
    assert again["spec"]["manifests"] == card["spec"]["manifests"]
    for name, loss in card["losses"].items():
        assert again["losses"][name] == pytest.approx(loss, rel=0.15)
