"""Skeletons: they pass their own tests as written and run from the command line; nothing is overwritten."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench.records.folder import read_run

Call = Callable[..., Any]
QUICK = ("--steps", 2, "--controls", "none", "--quiet")


def test_both_skeletons_pass_their_own_tests(vlbench: Call, tmp_path: Path) -> None:
    for kind in ("model", "task"):
        assert vlbench("new", kind, f"my_{kind}", "--into", tmp_path / "some where").code == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout


def test_the_next_step_runs_a_new_task(vlbench: Call, tmp_path: Path) -> None:
    done = vlbench("new", "task", "my_task", "--into", tmp_path / "some where")
    folder, line = done.out.splitlines()
    assert Path(folder) == tmp_path / "some where" / "my_task"
    command = shlex.split(line.removeprefix("next: vlbench "))
    record = read_run(vlbench(*command, *QUICK, "--output-path", tmp_path / "runs").run)
    assert (record.task.name, record.task.n_scored, record.status) == ("my_task", 8, "done")


def test_a_new_task_is_answered_in_words(vlbench: Call, tmp_path: Path) -> None:
    folder = Path(vlbench("new", "task", "my_task", "--into", tmp_path).out.splitlines()[0])
    place = ("--tasks-dir", tmp_path, "--data-root", folder / "sample", "--output-path", tmp_path / "runs", "--quiet")
    asked = ("--task", "my_task", "--model", "fake", "--mode", "zero-shot", "--answer-by", "text")
    record = read_run(vlbench("run", *asked, *place).run)
    assert record.status == "done" and record.coverage is not None
    assert record.coverage.expected == record.coverage.scored == 8
    # Without its rule a list of labels is still kept to: what is none of them is counted.
    (folder / "task.yaml").write_text((folder / "task.yaml").read_text().replace("extraction: named_label\n", ""))
    other = read_run(vlbench("run", *asked, *place, "--no-resume").run)
    assert other.status == "done" and other.model.extraction == "verbatim"


def test_the_next_step_runs_a_new_model(vlbench: Call, tmp_path: Path, tiny_world: Path) -> None:
    folder, line = vlbench("new", "model", "my_model", "--into", tmp_path).out.splitlines()
    command = shlex.split(line.removeprefix("next: vlbench "))
    assert command[-1] == f"{folder}/backbone.py:MyModel"
    place = ("--data-root", tiny_world, "--output-path", tmp_path / "runs", *QUICK)
    for task in ("nlvr2", "vqa2"):  # pairs of images, and open answers
        record = read_run(vlbench(*command, *place, "--task", task).run)
        assert (record.task.name, record.model.name, record.status) == (task, "my_model", "done")


def test_a_new_model_learns_a_new_task(vlbench: Call, tmp_path: Path) -> None:
    for kind in ("model", "task"):
        vlbench("new", kind, f"my_{kind}", "--into", tmp_path)
    done = vlbench(
        "run", "--task", "my_task", "--tasks-dir", tmp_path, "--data-root", tmp_path / "my_task" / "sample",
        "--model", tmp_path / "my_model" / "backbone.py:MyModel", "--output-path", tmp_path / "runs", "--quiet",
        "--seed", 1,
    )  # fmt: skip
    accuracy = read_run(done.run).result("accuracy")
    assert accuracy is not None and accuracy.value >= 87.5  # of 8 examples; random answers give 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model", "Upper"), "'Upper' is not a valid name for a model: use lower-case letters"),
        (("task", "class"), "'class' is not a valid name for a task"),
        (("task", "../x"), "'../x' is not a valid name for a task"),
        (("model", "vilt"), "'vilt' is already a model of vlbench: choose another name"),
        (("task", "nlvr2"), "'nlvr2' is already a task of vlbench"),
    ],
)
def test_names_that_cannot_be(
    arguments: tuple[str, ...], said: str, vlbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = vlbench("new", *arguments)
    assert (done.code, done.err.startswith(f"vlbench: {said}")) == (2, True), done.err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_nor_half_written(vlbench: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("keep")
    done = vlbench("new", "model", "mine", "--into", tmp_path)
    assert done.code == 2 and "exists and is not overwritten" in done.err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"] and mine.read_text() == "keep"
    done = vlbench("new", "task", "other", "--into", mine)
    assert done.code == 5 and "cannot write" in done.err
