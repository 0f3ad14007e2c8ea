"""Collective operations of three processes with unequal shares give the same as one process."""

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

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def collectives(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("collectives")


@pytest.fixture(scope="module")
def results(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of each of three processes."""
    out, script = tmp_path_factory.mktemp("collectives"), str(TESTS / "collectives.py")
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3")
    done = subprocess.run(
        [*launch, script, str(out), str(tiny_world)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(3)]


def test_rows_are_gathered_process_after_process_whatever_their_numbers(results: list[dict[str, Any]]) -> None:
    expected = [
        [[0, 0], [1, -1], [2, -2], [100, 0], [200, 0], [201, -1]],  # 3, 1 and 2 rows
        [[0, 0], [1, -1], [200, 0], [201, -1], [202, -2]],  # the second process has none
        [[0, 0], [100, 0], [200, 0]],
    ]
    assert all(result["gathered"] == expected for result in results)
    assert all(result["total"] == [3.0, 1.5] for result in results)


def test_batch_norms_normalise_by_all_maps(results: list[dict[str, Any]], collectives: ModuleType) -> None:
    """4, 1 and 2 maps on three processes against torch's batch norm over all 7."""
    whole, maps = collectives.layer(), collectives.maps().requires_grad_()
    normed = whole(maps)
    (normed**3 * collectives.weights()).sum().backward()

    def joined(name: str) -> torch.Tensor:
        return torch.cat([torch.tensor(result[name]) for result in results])

    assert torch.allclose(joined("normed"), normed, atol=1e-5)
    assert torch.allclose(joined("input_gradient"), maps.grad, atol=1e-5)
    of_weight = sum(torch.tensor(result["weight_gradient"]) for result in results)
    assert torch.allclose(of_weight, whole[0].weight.grad, rtol=1e-5)
    for result in results:
        mean, variance, tracked = result["running"]
        assert mean == pytest.approx(whole[0].running_mean.tolist(), rel=1e-6)
        assert variance == pytest.approx(whole[0].running_var.tolist(), rel=1e-6) and tracked == 1
    assert torch.allclose(joined("evaluated"), whole.eval()(maps), atol=1e-5)


def test_a_process_without_an_example_changes_nothing(
    results: list[dict[str, Any]],
    collectives: ModuleType,
    load_script: Callable[[str], ModuleType],
    tiny_world: Path,
    tmp_path: Path,
) -> None:
    """Steps of two examples on three processes: the third process takes part, and its pair is not a negative."""
    alone = load_script("training").train(collectives.FEW, tiny_world, tmp_path)["log"]
    for result in results:
        assert result["few"]["weights"] == results[0]["few"]["weights"]
        for name, tolerance in (("loss", 1e-5), ("grad_norm", 1e-3)):
            assert [line[name] for line in result["few"]["log"]] == pytest.approx(
                [line[name] for line in alone], abs=tolerance
            )
