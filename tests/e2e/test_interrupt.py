"""Stopped anywhere, a run goes on by the command it prints, and its answers are those of a run nobody stopped."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vlbench.core.cards import Recipe
from vlbench.core.spec import RunSpec
from vlbench.engine.evaluate import run
from vlbench.engine.evaluators import classification
from vlbench.records.folder import RunFolder, find_runs, read_run

Call = Callable[..., Any]
Predictions = Callable[[Path], pd.DataFrame]
Values = dict[str, object]

STEPS = 100
"""Long enough that a signal arrives before the last one."""


@pytest.fixture
def command(quick: list[object]) -> list[object]:
    return [*quick, "--model", "cvlp", "--controls", "blind"]


@pytest.fixture(scope="module")
def whole(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped by nobody."""
    recipe, runs = Recipe(steps=4, batch_size=8, evaluations=2), tmp_path_factory.mktemp("runs")
    spec = RunSpec(
        task="nlvr2", model="cvlp", data_root=tiny_world, controls=("blind",), train=recipe, output_path=runs
    )
    return run(spec)[1].path


def stop_when(monkeypatch: pytest.MonkeyPatch, place: str, number: int) -> None:
    """Send this process a signal once: while a line of metrics or a batch of answers of that kind is at hand."""
    sent = False

    def once(reached: bool) -> None:
        nonlocal sent
        if reached and not sent:
            sent = True
            signal.raise_signal(number)

    append, answer = RunFolder.append_metrics, classification.classify

    def appended(self: RunFolder, values: Values) -> None:
        append(self, values)
        once(place == "training" and values.get("step") == 2 and "loss" in values and "control" not in values)
        once(place == "control" and values.get("step") == 2 and "loss" in values and "control" in values)

    def answered(learner: Any, examples: Any, pace: Any, shards: Any) -> Any:
        once(pace.what == place)
        return answer(learner, examples, pace, shards)

    monkeypatch.setattr(RunFolder, "append_metrics", appended)
    monkeypatch.setattr(classification, "classify", answered)


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("training", signal.SIGINT),
        ("training", signal.SIGTERM),
        ("selecting", signal.SIGINT),
        ("predicting", signal.SIGINT),
        ("control", signal.SIGINT),
        ("predicting (blind)", signal.SIGTERM),
    ],
)
def test_a_stopped_run_goes_on(
    place: str,
    number: int,
    vlbench: Call,
    command: list[object],
    predictions: Predictions,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        stop_when(patch, place, number)
        stopped = vlbench(*command)
    assert (stopped.code, stopped.out) == (130, "")
    (folder,) = find_runs(tmp_path / "runs")
    assert read_run(folder).status == "interrupted"
    assert not (folder / "samples.parquet").exists()

    told, resume = stopped.err.splitlines()[-2:]
    assert told == "vlbench: interrupted"
    assert resume.startswith("resume with: vlbench run ")
    resumed = vlbench(*shlex.split(resume.removeprefix("resume with: vlbench ")))
    assert (resumed.code, resumed.run) == (0, folder)
    assert folder.name == whole.name
    pd.testing.assert_frame_equal(predictions(folder), predictions(whole), check_exact=True)
    one, other = read_run(folder), read_run(whole)
    assert (one.status, one.results, one.controls, one.train) == ("done", other.results, other.controls, other.train)
    assert losses(folder) == losses(whole)
    assert sorted(path.name for path in folder.rglob("last")) == []


def losses(run: Path) -> list[object]:
    """Every training step of the run and of its control, once and in order: none was done twice."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf8").splitlines())
    return [(line.get("control"), line["step"], line["loss"]) for line in lines if "loss" in line]


def test_a_killed_process_resumes(vlbench: Call, quick: list[object], predictions: Predictions, tmp_path: Path) -> None:
    """A process of its own, as a user has it: no fixture stands between the signal and the run."""
    arguments = [str(part) for part in [*quick, "--model", "cvlp", "--steps", STEPS]]
    process = subprocess.Popen(
        [sys.executable, "-m", "vlbench", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        wait_for_step(tmp_path / "runs", process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    (folder,) = find_runs(tmp_path / "runs")
    assert read_run(folder).status == "interrupted"
    done = len(losses(folder))
    assert 0 < done < STEPS
    resume = err.splitlines()[-1].removeprefix("resume with: vlbench ")
    assert vlbench(*shlex.split(resume)).run == folder
    assert len(predictions(folder)) == 96
    assert [step for _, step, _ in losses(folder)] == list(range(1, STEPS + 1))


def wait_for_step(runs: Path, process: subprocess.Popen[str]) -> None:
    """Until the first training steps are done."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if any(len(path.read_bytes().splitlines()) >= 3 for path in runs.rglob("metrics.jsonl")):
            return
        time.sleep(0.02)
    pytest.fail("the run did not begin to train")
