"""`vlbench list`, `--version`, and both spellings of a flag."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import vlbench as package
from vlbench import catalog
from vlbench.records.folder import find_runs

Call = Callable[..., Any]


@pytest.mark.parametrize(
    ("what", "key", "names"),
    [("tasks", "task", set(catalog.task_folders())), ("models", "model", set(catalog.model_folders()))],
)
def test_the_folders_are_listed(what: str, key: str, names: set[str], vlbench: Call) -> None:
    done = vlbench("list", what)
    assert done.code == 0
    assert {line.split()[0] for line in done.out.splitlines()[2:]} == names
    shown = json.loads(vlbench("list", what, "--json").out)
    assert list(shown) == [what]
    assert {row[key] for row in shown[what]} == names


def test_metrics_are_listed_with_the_main_one(vlbench: Call) -> None:
    rows = json.loads(vlbench("list", "metrics", "--json").out)["metrics"]
    assert {"task": "nlvr2", "metric": "accuracy", "main": True} in rows
    assert {"task": "nlvr2", "metric": "consistency", "main": False} in rows


def test_private_tasks_are_listed_beside_the_built_in_ones(vlbench: Call, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    card = (catalog.task_folders()["nlvr"] / "task.yaml").read_text(encoding="utf8")
    (folder / "task.yaml").write_text(card.replace("name: nlvr\n", "name: mine\n"), encoding="utf8")
    for spelling in ("--tasks-dir", "--tasks_dir"):
        rows = json.loads(vlbench("list", "tasks", spelling, tmp_path, "--json").out)["tasks"]
        assert {row["task"] for row in rows} == {"mine", *catalog.task_folders()}
    assert "mine" not in vlbench("list", "tasks").out


def test_runs_are_listed(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    assert vlbench("list", "runs", "--output-path", tmp_path).out == "no runs\n"
    vlbench("run", "--task", "nlvr2", "--model", "fake", "--data_root", tiny_world, "--output_path", tmp_path,
            "--select_on=none", "--set", "train.batch-size=8", "--steps", 2, "--controls", "none")  # fmt: skip
    (run,) = find_runs(tmp_path)
    (row,) = json.loads(vlbench("list", "runs", "--output-path", tmp_path, "--json").out)["runs"]
    assert (row["run"], row["status"], row["split"]) == (str(run), "done", "test-p")
    assert (row["metric"], row["data"]) == ("accuracy", "world")
    assert 0 <= row["value"] <= 100
    shown = vlbench("list", "runs", f"--output-path={tmp_path}").out
    assert str(run) in shown
    assert "fake-tiny" in shown


def test_values_keep_their_underscores(vlbench: Call, tmp_path: Path) -> None:
    done = vlbench("list", "tasks", "--tasks-dir", tmp_path / "my_tasks")
    assert done.code == 2
    assert str(tmp_path / "my_tasks") in done.err


def test_version(vlbench: Call) -> None:
    assert vlbench("--version").out == f"{package.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("data",), ("run", "--help")])
def test_help_is_no_fault(arguments: tuple[str, ...], vlbench: Call) -> None:
    done = vlbench(*arguments)
    assert (done.code, done.err) == (0, "")
    assert "Usage: vlbench" in done.out


def test_an_internal_error_is_called_one(vlbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "task_folders", partial(int, "x"))
    done = vlbench("list", "tasks")
    assert done.code == 1
    assert done.err.startswith("Traceback")
    assert "TypeError" in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("vlbench: internal error; please report the traceback above") and package.__version__ in last
