"""Trials side by side are those of one after the other, to the last bit, whoever stops or dies in between."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vlbench.core.errors import ExitCode
from vlbench.records.folder import find_runs

Call = Callable[..., Any]
MEASURED = ("spec", "environment", "started", "seconds", "efficiency", "seal")
"""Fields of a record that differ between two runs of the same spec in two folders."""


@pytest.fixture
def command(quick: list[object]) -> list[object]:
    return [*quick, "--controls", "blind"]


def left(runs: Path) -> dict[str, object]:
    """What every run has left, without times: its record, samples, metrics and the names of its files."""
    return {str(run.relative_to(runs)): _left_by(run) for run in find_runs(runs)}


def _left_by(run: Path) -> list[object]:
    record = json.loads((run / "run.json").read_text(encoding="utf8"))
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf8").splitlines())
    return [
        {name: value for name, value in record.items() if name not in MEASURED},
        {name: value for name, value in record["environment"].items() if name != "trials_at_once"},
        sorted(record["efficiency"]["seconds"]),
        repr(pd.read_parquet(run / "samples.parquet").to_dict("records")),
        [{name: value for name, value in line.items() if name != "seconds"} for line in lines],
        sorted(str(path.relative_to(run)) for path in run.rglob("*")),
    ]


def test_a_control_beside_its_run(command: list[object], vlbench: Call, tmp_path: Path) -> None:
    command = [*command, "--model", "fake"]
    assert vlbench(*command).code == 0
    beside = vlbench(*command, "--jobs", 2, "--output-path", tmp_path / "beside")
    assert (beside.code, beside.err) == (0, "")
    assert left(tmp_path / "beside") == left(tmp_path / "runs")


@pytest.mark.slow
def test_runs_side_by_side(command: list[object], vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    """Two seeds of three tasks, with controls; one task has lost its data."""
    shutil.copytree(tiny_world, tmp_path / "world")
    shutil.rmtree(tmp_path / "world" / "vqa2")
    command = [*command, "--model", "fake", "--task", "nlvr2,vqa2,gqa", "--seeds", "0,1"]
    command += ["--data-root", tmp_path / "world"]
    in_turn = vlbench(*command)
    beside = vlbench(*command, "--jobs", 4, "--output-path", tmp_path / "beside")
    assert in_turn.code == beside.code == ExitCode.SOME_FAILED
    assert left(tmp_path / "beside") == left(tmp_path / "runs")
    assert len(left(tmp_path / "runs")) == 4
    assert sorted(beside.err.splitlines()) == sorted(in_turn.err.splitlines())
    assert folders(beside.out) == folders(in_turn.out)
    again = vlbench(*command, "--jobs", 4)
    assert (again.code, again.out) == (ExitCode.SOME_FAILED, in_turn.out)


def folders(out: str) -> list[str]:
    """The runs in the order in which they are printed."""
    return [Path(line).name for line in out.splitlines() if line.startswith("/")]


@pytest.mark.slow
@pytest.mark.parametrize("tasks", ["nlvr2", "nlvr2,gqa"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_goes_on(
    number: signal.Signals, tasks: str, command: list[object], vlbench: Call, tmp_path: Path
) -> None:
    """One run and its control, or two runs, while both of them train."""
    command = [*command, "--model", "cvlp", "--task", tasks, "--steps", 30, "--set", "train.evaluations=1"]
    whole = vlbench(*command, "--output-path", tmp_path / "whole")
    assert whole.code == 0
    command += ["--jobs", 2]
    arguments = [sys.executable, "-m", "vlbench", *map(str, command)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for_lines(tmp_path / "runs", 2, process)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "Traceback" not in err
    assert not [*(tmp_path / "runs").rglob("samples.parquet")]
    if number != signal.SIGKILL:
        assert process.returncode == ExitCode.INTERRUPTED
        command = [*shlex.split(err.splitlines()[-1].removeprefix("resume with: vlbench "))]
    resumed = resume(command, vlbench)
    assert resumed.code == 0
    assert left(tmp_path / "runs") == left(tmp_path / "whole")


def resume(command: list[object], vlbench: Call) -> Any:
    """The command again, once the processes of a killed one have let go of its runs."""
    until = time.monotonic() + 60
    while True:
        done = vlbench(*command)
        if "being written by another run" not in done.err or time.monotonic() > until:
            return done
        time.sleep(0.1)


def wait_for_lines(runs: Path, logs: int, process: subprocess.Popen[str]) -> None:
    """Until so many trainings have done their first steps."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if sum(len(path.read_bytes().splitlines()) >= 3 for path in runs.rglob("metrics.jsonl")) >= logs:
            return
        time.sleep(0.02)
    pytest.fail("the runs did not begin to train")
