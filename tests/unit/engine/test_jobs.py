"""How many trials run at once: never so many that one would compute otherwise, or run out of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlbench.core.spec import RunSpec
from vlbench.engine import jobs

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, much memory, no GPU."""
    monkeypatch.setattr(jobs, "usable_cores", lambda: 8)
    monkeypatch.setattr(jobs, "default_threads", lambda: 8)
    monkeypatch.setattr(jobs, "free_memory", lambda: 100 * GIB)
    monkeypatch.setattr(jobs, "visible_gpus", lambda device: [])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 8),  # the tiny size computes with one thread
        ({"threads": 3}, 2),
        ({"threads": 9}, 1),
        ({"workers": 1}, 4),
        ({"model": "fake"}, 1),  # with all threads, so that another number of them would round otherwise
        ({"size": "base"}, 1),
        ({"num_processes": 2}, 1),
    ],
)
def test_as_many_as_the_cores_suffice_for(values: dict[str, Any], expected: int) -> None:
    spec = RunSpec(task="nlvr2", **{"model": "cvlp", **values})
    assert jobs.fitting_jobs([spec]) == expected
    assert jobs.fitting_jobs([RunSpec(task="nlvr2", model="cvlp"), spec]) == expected


def test_as_many_as_the_memory_suffices_for(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec(task="nlvr2", model="cvlp")
    for free, expected in ((5 * GIB, 3), (GIB // 4, 1), (None, 8)):
        monkeypatch.setattr(jobs, "free_memory", lambda free=free: free)
        assert jobs.fitting_jobs([spec]) == expected


def test_one_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "visible_gpus", lambda device: ["4", "6"])
    assert jobs.fitting_jobs([RunSpec(task="nlvr2", model="fake")]) == 2


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "visible_gpus", lambda device: ["4", "6", "7"])
    given = [[environment["CUDA_VISIBLE_DEVICES"] for environment in jobs.gpu_environments(n, None)] for n in (1, 2, 4)]
    assert given == [["4,6,7"], ["4,7", "6"], ["4", "6", "7", "4"]]


def test_a_cpu_has_no_gpus() -> None:
    assert jobs.gpu_environments(2, "cpu") == [{}, {}]


def test_real_data_keep_workers_busy(tmp_path: Path) -> None:
    assert jobs.fitting_jobs([RunSpec(task="nlvr2", model="cvlp", size="tiny", data_root=tmp_path, workers=3)]) == 2
