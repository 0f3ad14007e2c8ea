"""A ranking killed without warning goes on by the same command, and its scores are those of a run nobody killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vlbench.records.folder import find_runs, read_run

Call = Callable[..., Any]


@pytest.fixture
def command(tiny_world: Path) -> list[object]:
    """All pairs of the test split, in so small batches that a signal arrives before the last one."""
    return [
        *("run", "--task", "coco_retrieval", "--model", "vilt", "--data-root", tiny_world, "--steps", 2),
        *("--batch-size", 2, "--select-on", "none", "--eval-batch-size", 2, "--quiet", "--output-path"),
    ]


@pytest.mark.slow
def test_killed_between_blocks(vlbench: Call, command: list[object], tmp_path: Path) -> None:
    whole = vlbench(*command, tmp_path / "whole").run
    runs = tmp_path / "runs"
    for blocks in (2, 5):
        kill_after(blocks, [*command, runs], runs)
    (folder,) = find_runs(runs)
    assert read_run(folder).status == "started"
    assert vlbench(*command, runs).run == folder
    assert folder.name == whole.name
    assert pq.read_table(folder / "ranks.parquet").equals(pq.read_table(whole / "ranks.parquet"))
    scores = "scores/fold-0/scores.npy"
    assert (folder / scores).read_bytes() == (whole / scores).read_bytes()
    assert read_run(folder).results == read_run(whole).results


@pytest.mark.slow
def test_processes_share_the_pairs(vlbench: Call, command: list[object], tmp_path: Path) -> None:
    """Of the same weights; trained over processes they would differ in their last bits."""
    trained = vlbench(*command, tmp_path / "trained").run
    scores = set()
    for processes in (1, 2, 3):
        runs = tmp_path / f"by {processes}"
        done = vlbench(
            *("run", "--task", "coco_retrieval", "--model", "vilt", "--data-root", command[6], "--mode", "eval"),
            *("--checkpoint", trained, "--eval-batch-size", 5, "--limit", 9, "--threads", 1, "--device", "cpu"),
            *("--num-processes", processes, "--quiet", "--output-path", runs),
        )
        (run,) = find_runs(runs)
        assert (done.code, read_run(run).environment.world_size) == (0, processes)
        scores.add((run / "scores/fold-0/scores.npy").read_bytes())
    assert len(scores) == 1


def kill_after(blocks: int, command: list[object], runs: Path) -> None:
    """Run in a process of its own until so many blocks of scores are on disk, then SIGKILL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vlbench", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        until = time.monotonic() + 120
        while len(list(runs.rglob("scores-*.npy"))) < blocks:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < until, "the run did not begin to score"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    finally:
        process.kill()
