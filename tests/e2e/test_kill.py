"""Killed at any instant, work goes on by the same command and leaves, bit by bit, what it would have left anyway."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from vlbench.cli.main import main

Content = dict[str, Any]

FINETUNING = (
    "run", "--task", "snli_ve", "--model", "vilt", "--checkpoint", "none", "--controls", "none", "--limit", 24,
    "--steps", 20, "--batch-size", 8, "--save-every", 2, "--workers", 2,
    *("--set", "train.evaluations=2", "--set", "train.ema=0.9", "--set", "train.augment=randaugment"),
)  # fmt: skip
PRETRAINING = (
    "pretrain", "--model", "cvlp", "--steps", 20, "--batch-size", 8, "--save-every", 2, "--workers", 2,
    *("--set", "options.queue=40", "--set", "options.momentum=0.9", "--set", "train.warmup=0.0"),
)  # fmt: skip


@pytest.mark.parametrize("command", [FINETUNING, PRETRAINING], ids=["finetuning", "pretraining"])
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random(command: tuple[object, ...], kills: int, tiny_world: Path, tmp_path: Path) -> None:
    assert process(command, tiny_world, tmp_path / "whole") == 0
    chance, killed = Random(kills), 0
    while killed < kills:
        folder, code = tmp_path / f"run-{killed}", None
        while code is None and killed < kills:  # what is left becomes shorter, until a run ends before its kill
            code = process(command, tiny_world, folder, chance)
            killed += code is None
        if code is None:
            assert process(command, tiny_world, folder) == 0
        assert left(folder) == left(tmp_path / "whole")


def process(command: tuple[object, ...], world: Path, out: Path, chance: Random | None = None) -> int | None:
    """Run it in a process of its own; its exit code, None where it was killed, by chance, while it trained."""
    arguments = [*command, "--data-root", world, "--output-path", out, "--quiet"]
    child = multiprocessing.get_context("fork").Process(target=alone, args=([str(one) for one in arguments],))
    child.start()
    if chance is not None:
        lines, pause = len(logged(out)) + chance.randrange(10), chance.uniform(0.0, 0.1)
        while child.is_alive() and len(logged(out)) < lines:
            time.sleep(0.005)
        child.join(pause)
        child.kill()
    child.join()
    return None if child.exitcode == -signal.SIGKILL else child.exitcode


def logged(out: Path) -> list[str]:
    """The lines of the log, as far as there is one."""
    found = [Path(folder) / "metrics.jsonl" for folder, _, files in os.walk(out) if "metrics.jsonl" in files]
    return [line for path in found for line in path.read_text(encoding="utf8").splitlines()]


def alone(arguments: list[str]) -> None:
    os._exit(main(arguments))  # nothing of the test's own process is to be torn down


def left(out: Path) -> Content:
    """All weights, the answers, and every line of the log but how long it took."""
    return {
        **{
            f"{path.relative_to(out)} {name}": tensor.numpy().tobytes()
            for path in out.rglob("*.safetensors")
            for name, tensor in load_file(path).items()
        },
        **{path.name: pd.read_parquet(path).to_json(double_precision=15) for path in out.rglob("samples.parquet")},
        "log": [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in logged(out)],
    }
