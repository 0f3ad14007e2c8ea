"""Training by two processes is training by one: the same rows, rates and losses, and weights that stay alike."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "training.py"
STILL = ("cvlp:nlvr2", "fake:coco_retrieval")
"""Without dropout and batch norm, and with losses that add up over the parts of a batch."""
OTHERS = ("lxmert:vqa2", "vilt:snli_ve", "soho:nlvr2", "brivl:coco_retrieval")


@pytest.fixture(scope="module")
def training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_two(names: tuple[str, ...], world: Path, out: Path) -> dict[str, list[Any]]:
    """What both processes are left with, by the training's name."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    done = subprocess.run(
        [sys.executable, *command, str(world), str(out), *names],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return {name: [json.loads((out / f"{name}-{rank}.json").read_text()) for rank in (0, 1)] for name in names}


def column(log: list[dict[str, float]], name: str) -> list[float]:
    return [line[name] for line in log]


def test_two_processes_and_parts_are_one_batch(training: ModuleType, tiny_world: Path, tmp_path: Path) -> None:
    found = by_two(STILL, tiny_world, tmp_path)
    for name, (first, second) in found.items():
        assert first["weights"] == second["weights"]  # bit by bit, each having seen its own half
        whole = training.train(name, tiny_world, tmp_path / f"{name}-whole")
        halves = training.train(name, tiny_world, tmp_path / f"{name}-halves", 2)
        for log in (first["log"], second["log"], halves["log"]):
            assert column(log, "lr") == column(whole["log"], "lr")
            assert column(log, "loss") == pytest.approx(column(whole["log"], "loss"), abs=1e-5)
            assert column(log, "grad_norm") == pytest.approx(column(whole["log"], "grad_norm"), rel=1e-4)


@pytest.mark.slow
def test_every_model_trains_by_two_processes(tiny_world: Path, tmp_path: Path) -> None:
    """Whatever a head leaves unused of its backbone, and whatever moves beside the weights."""
    for name, (first, second) in by_two(OTHERS, tiny_world, tmp_path).items():
        assert first["weights"] == second["weights"], name
        assert column(first["log"], "loss") == column(second["log"], "loss")


@pytest.mark.slow
def test_pretraining_by_two_processes_is_by_one_in_halves(vlbench: Any, tiny_world: Path, tmp_path: Path) -> None:
    """CVLP's queue is filled by the keys of both, and its contrast with them is the same."""
    losses = []
    for name, extra in (("two", ("--num-processes", 2)), ("halves", ("--set", "train.accumulation=2"))):
        done = vlbench(
            "pretrain", "--model", "cvlp", "--data-root", tiny_world, "--steps", 4, "--batch-size", 12, "--quiet",
            "--set", "options.queue=40", "--set", "train.warmup=0.0", "--output-path", tmp_path / name, *extra,
        )  # fmt: skip
        assert done.code == 0, done.err
        log = map(json.loads, (tmp_path / name / "cvlp-tiny" / "metrics.jsonl").read_text().splitlines())
        losses.append([line[objective] for line in log for objective in ("mlm", "itm", "contrast")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][-1] > 0
