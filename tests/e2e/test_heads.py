"""Heads without their backbone: a probe of shipped weights keeps its head, and shipped weights match untrained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from vlbench import catalog

Predictions = Callable[[Path], pd.DataFrame]


@pytest.fixture
def world(tiny_world: Path, tmp_path: Path) -> list[object]:
    """Runs on the tiny world below the test's own folder, from the weights that the model ships with."""
    return ["--data-root", tiny_world, "--size", "tiny", "--output-path", tmp_path / "runs", "--quiet"]


@pytest.fixture
def probe(vlbench: Any, world: list[object]) -> Path:
    """A run whose linear head was trained a little."""
    done = vlbench("run", "--task", "snli_ve", "--model", "vilt", "--mode", "probe", "--checkpoint", "shipped",
                   "--controls", "none", "--epochs", 2, *world)  # fmt: skip
    assert done.code == 0, done.err
    return Path(done.out.splitlines()[-1])


def test_a_probed_head_stands_on_shipped_weights(
    probe: Path, vlbench: Any, world: list[object], predictions: Predictions, tmp_path: Path
) -> None:
    kept = load_file(probe / "checkpoints/best/model.safetensors")
    assert kept.keys() == {"head.classifier.0.weight", "head.classifier.0.bias"}
    place = tmp_path / "heads/vilt/snli_ve"
    place.parent.mkdir(parents=True)
    (probe / "checkpoints/best").rename(place)
    done = vlbench("run", "--task", "snli_ve", "--model", "vilt", "--mode", "eval",
                   "--checkpoint", tmp_path / "heads/{model}/{task}", *world)  # fmt: skip
    assert done.code == 0, done.err
    again = predictions(Path(done.out.splitlines()[-1]))
    assert again[["example_id", "prediction", "confidence"]].equals(
        predictions(probe)[["example_id", "prediction", "confidence"]]
    )


def test_a_head_over_other_weights_is_refused(probe: Path, vlbench: Any, world: list[object]) -> None:
    done = vlbench("run", "--task", "snli_ve", "--model", "cvlp", "--mode", "eval", "--checkpoint", probe, *world)
    assert done.code == 6
    assert "is a head alone, probed on shipped weights" in done.err and "cvlp-tiny ships with" in done.err


def test_shipped_weights_rank_untrained_by_the_head_they_bring(
    vlbench: Any, world: list[object], predictions: Predictions, tmp_path: Path
) -> None:
    asked = ["run", "--task", "coco_retrieval", "--model", "vilt", "--limit", 4, *world]
    shipped = catalog.shipped_weights("vilt", "tiny")
    assert shipped is not None
    told = vlbench(*asked, "--mode", "zero-shot", "--checkpoint", "shipped")
    assert told.code == 0, told.err
    state = load_file(shipped)
    headless, turned = tmp_path / "headless.safetensors", tmp_path / "turned.safetensors"
    save_file({name: value for name, value in state.items() if not name.startswith("head.")}, headless)
    save_file({name: -value if name.startswith("head.") else value for name, value in state.items()}, turned)
    assert vlbench(*asked, "--mode", "zero-shot", "--checkpoint", headless).code == 6
    assert vlbench(*asked, "--mode", "zero-shot", "--checkpoint", "none").code == 2
    opposite = vlbench(*asked, "--mode", "zero-shot", "--checkpoint", turned)
    ranks, others = (
        pd.read_parquet(Path(done.out.splitlines()[-1]) / "ranks.parquet").set_index("query_id")["rank_high"]
        for done in (told, opposite)
    )
    assert torch.tensor(ranks.to_numpy(float)).median() < torch.tensor(others.to_numpy(float)).median()
