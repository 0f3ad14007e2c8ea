"""The gate over real runs: weights that were worsened are caught, the same ones pass, a handful says nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlbench import catalog

Score = Callable[..., Path]


@pytest.fixture
def score(vlbench: Any, tiny_world: Path, tmp_path: Path) -> Score:
    """Rank a gallery by a file of ViLT's weights; the folder of the runs."""

    def call(name: str, weights: Path) -> Path:
        folder = tmp_path / name
        done = vlbench("run", "--task", "coco_retrieval", "--model", "vilt", "--size", "tiny", "--mode", "zero-shot",
                       "--checkpoint", weights, "--data-root", tiny_world, "--output-path", folder,
                       "--quiet")  # fmt: skip
        assert done.code == 0, done.err
        return folder

    return call


def test_worsened_weights_are_a_regression_and_the_same_ones_pass(score: Score, vlbench: Any, tmp_path: Path) -> None:
    shipped, baseline = catalog.shipped_weights("vilt", "tiny"), tmp_path / "baseline.json"
    assert shipped is not None
    gate = ["gate", "--baseline", baseline]
    made = vlbench(*gate, score("before", shipped), "--update-baseline", "--reason", "first")
    assert made.code == 0, made.err
    same = vlbench(*gate, score("same", shipped), "--json")
    assert same.code == 0 and json.loads(same.out)["verdicts"][0]["kind"] == "pass"
    state, chance = load_file(shipped), torch.Generator().manual_seed(0)
    worse = {
        name: value + 0.1 * value.std(correction=0) * torch.randn(value.shape, generator=chance)
        for name, value in state.items()
    }
    save_file(worse, tmp_path / "worse.safetensors")
    caught = vlbench(*gate, score("worse", tmp_path / "worse.safetensors"), "--json")
    verdict = json.loads(caught.out)["verdicts"][0]
    assert (caught.code, verdict["kind"]) == (3, "regression")
    assert verdict["flips"] and "its weights differ from the baseline's" in verdict["reason"]


def test_three_seeds_of_twenty_examples_are_inconclusive(vlbench: Any, quick: list[object], tmp_path: Path) -> None:
    for name in ("before", "now"):
        done = vlbench(*quick, "--model", "fake", "--seeds", "0,1,2", "--limit", 20, "--output-path", tmp_path / name)
        assert done.code == 0, done.err
    gate = ["gate", "--baseline", tmp_path / "baseline.json"]
    assert vlbench(*gate, tmp_path / "before", "--update-baseline", "--reason", "first").code == 0
    told = vlbench(*gate, tmp_path / "now")
    assert told.code == 4 and "groups of examples: 50 or more are needed" in told.out
