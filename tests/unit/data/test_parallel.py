"""How many processes prepare inputs."""

from __future__ import annotations

import pytest

from vlbench.data import parallel


@pytest.mark.parametrize(
    ("cores", "sharing", "expected"),
    [
        *((2, "", 0), (3, "", 0), (4, "", 2), (5, "", 2), (16, "", 8), (64, "", 8)),
        *((64, "8", 4), (16, "8", 0), (8, "x", 4), (11, "2", 2), (7, "2", 0), (9, "2", 2)),
    ],
)
def test_spare_processes(cores: int, sharing: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", sharing)
    found = parallel.spare_processes()
    assert found == expected and isinstance(found, int)


@pytest.mark.parametrize(
    ("cores", "items", "workers"), [(8, 63, None), (8, 64, 2), (8, 95, 2), (8, 96, 3), (3, 1000, 3), (1, 1000, None)]
)
def test_a_worker_has_at_least_one_whole_chunk(
    cores: int, items: int, workers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are of 32 items, and one worker is none."""
    asked: list[object] = []

    class Pool:
        def __init__(self, number: object, **_: object) -> None:
            asked.append(number)

        map = staticmethod(lambda function, items, chunksize: map(function, items))

        def shutdown(self, cancel_futures: bool) -> None:
            assert cancel_futures

    monkeypatch.setattr(parallel, "usable_cores", lambda: cores)
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", Pool)
    assert list(parallel.parallel_map(str, range(items))) == [str(item) for item in range(items)]
    assert asked == ([] if workers is None else [workers]) and all(isinstance(number, int) for number in asked)
