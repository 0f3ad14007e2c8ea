"""Training by two processes is training by one: the same rows, rates and losses, and weights that stay alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[1] / "training.py"
STILL = ("cvlp:nlvr2", "fake:coco_retrieval")
"""Without dropout, and with losses that add up over the parts of a batch."""
SHARDED = "cvlp:nlvr2+fsdp"
OTHERS = ("lxmert:vqa2", "vilt:snli_ve", "soho:nlvr2", "brivl:coco_retrieval")


@pytest.fixture(scope="module")
def training(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("training")


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
    files = {name: f"{name.replace('/', '_')}-{{}}.json" for name in names}
    return {
        name: [json.loads((out / file.format(rank)).read_text()) for rank in (0, 1)] for name, file in files.items()
    }


def column(log: list[dict[str, float]], name: str) -> list[float]:
    return [line[name] for line in log]


@pytest.fixture(scope="module")
def trained_by_two(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return by_two((*STILL, SHARDED), tiny_world, tmp_path_factory.mktemp("two"))


def test_sharded_training_saves_resumes_and_is_that_of_ddp(trained_by_two: dict[str, list[Any]]) -> None:
    replicated, sharded = trained_by_two[STILL[0]], trained_by_two[SHARDED]
    assert [left["types"] for left in (*replicated, *sharded)] == [["Parameter"]] * 2 + [["DTensor"]] * 2
    for log in (left["log"] for left in sharded):
        assert [line["step"] for line in log] == [1, 2, 3, 4]
        assert column(log, "loss") == pytest.approx(column(replicated[0]["log"], "loss"), abs=1e-5)
        assert column(log, "grad_norm") == pytest.approx(column(replicated[0]["log"], "grad_norm"), rel=1e-4)
    assert sharded[0]["weights"] == sharded[1]["weights"]


def test_two_processes_and_parts_are_one_batch(
    trained_by_two: dict[str, list[Any]], training: ModuleType, tiny_world: Path, tmp_path: Path
) -> None:
    for name, (first, second) in ((name, trained_by_two[name]) for name in STILL):
        assert first["weights"] == second["weights"]  # bit by bit, each having seen its own half
        whole = training.train(name, tiny_world, tmp_path / f"{name}-whole")
        halves = training.train(name, tiny_world, tmp_path / f"{name}-halves", 2)
        for log in (first["log"], second["log"], halves["log"]):
            assert column(log, "lr") == column(whole["log"], "lr")
            assert column(log, "loss") == pytest.approx(column(whole["log"], "loss"), abs=1e-5)
            assert column(log, "grad_norm") == pytest.approx(column(whole["log"], "grad_norm"), rel=1e-4)


def test_a_loss_over_the_step_does_not_depend_on_how_it_is_cut(
    training: ModuleType, tiny_world: Path, make_hf: Callable[..., Path], tmp_path: Path
) -> None:
    """Two towers, whose other pairs are negatives, and a network with batch norms: 20 steps of 16 examples.

    The same steps by one process at once, by two with 8 examples each, and, of the towers, one example at a time.
    """
    towers = ("brivl:coco_retrieval@20x16", f"hf:{make_hf('CLIPModel')}:coco_retrieval@20x16")
    for name, (first, second) in by_two((*towers, "soho:vqa2@20x16"), tiny_world, tmp_path).items():
        assert first["weights"] == second["weights"]
        whole = training.train(name, tiny_world, tmp_path / "whole" / training.file_name(name))["log"]
        logs = [first["log"], second["log"]]
        if name in towers:
            logs.append(training.train(name, tiny_world, tmp_path / "parts" / training.file_name(name), 16)["log"])
        assert abs(whole[-1]["loss"] - whole[0]["loss"]) > 0.02  # something is learned
        for log in logs:
            assert column(log, "loss") == pytest.approx(column(whole, "loss"), abs=1e-5)
            assert column(log, "grad_norm") == pytest.approx(column(whole, "grad_norm"), rel=1e-4)


@pytest.mark.slow
def test_every_model_trains_by_two_processes(tiny_world: Path, tmp_path: Path) -> None:
    """Whatever a head leaves unused of its backbone, and whatever moves beside the weights."""
    for name, (first, second) in by_two(OTHERS, tiny_world, tmp_path).items():
        assert first["weights"] == second["weights"], name
        assert column(first["log"], "loss") == column(second["log"], "loss")


def test_batch_norms_of_a_pretraining_see_the_batch_of_all(vlbench: Any, tiny_world: Path, tmp_path: Path) -> None:
    """BriVL's, by one and two processes: the same losses and norms, and the same statistics in the end."""
    logs, weights = [], []
    for processes in (1, 2):
        done = vlbench(
            "pretrain", "--model", "brivl", "--data-root", tiny_world, "--steps", 4, "--batch-size", 12, "--quiet",
            "--set", "train.warmup=0.0", "--output-path", tmp_path / str(processes), "--num-processes", processes,
        )  # fmt: skip
        assert done.code == 0, done.err
        folder = tmp_path / str(processes) / "brivl-tiny"
        logs.append([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])
        weights.append(load_file(folder / "model.safetensors"))
    assert column(logs[1], "loss") == pytest.approx(column(logs[0], "loss"), abs=1e-4)
    assert column(logs[1], "grad_norm") == pytest.approx(column(logs[0], "grad_norm"), rel=1e-3)
    one, two = ({name: value for name, value in of.items() if "running" in name} for of in weights)
    assert one and all(torch.allclose(two[name], one[name], rtol=1e-3, atol=1e-4) for name in one)


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
