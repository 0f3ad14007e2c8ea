"""Runs that take about a second: few steps, small batches, the tiny world."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pytest

QUICK = ("--steps", 4, "--batch-size", 8, "--set", "train.evaluations=2", "--controls", "none", "--quiet")


@pytest.fixture
def quick(tiny_world: Path, tmp_path: Path) -> list[object]:
    """A quick run of a model to be named; its folder is `runs` below the test's own."""
    return ["run", "--task", "nlvr2", "--data-root", tiny_world, "--output-path", tmp_path / "runs", *QUICK]


@pytest.fixture
def predictions() -> Callable[[Path], pd.DataFrame]:
    """What a run answered, with every probability."""
    return lambda run: pd.read_parquet(run / "samples.parquet")


@pytest.fixture
def small_nlvr2(tmp_path: Path) -> Path:
    """A folder with eight real-looking examples in train, dev and test1 each, without pictures."""
    root = tmp_path / "data"
    for split in ("train", "dev", "test1"):
        write_lines(root / "data" / f"{split}.json", (line(split, number) for number in range(8)))
    return root


@pytest.fixture
def make_line() -> Callable[[str, int], dict[str, object]]:
    """One line of an official NLVR2 file."""
    return line


def line(split: str, number: int) -> dict[str, object]:
    sentence = f"There are {number // 2} dogs."
    label = str(number % 2 == 0)
    identifier = f"{split}-{number // 2}-{number % 2}-0"
    return {"identifier": identifier, "sentence": sentence, "label": label, "directory": 3, "synset": "dog"}


def write_lines(path: Path, lines: Iterable[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf8")
