"""How many processes prepare inputs."""

from __future__ import annotations

import pytest

from vlbench.data import parallel


@pytest.mark.parametrize(
    ("cores", "sharing", "expected"),
    [(2, "", 0), (3, "", 0), (4, "", 2), (16, "", 8), (64, "", 8), (64, "8", 4), (16, "8", 0), (8, "x", 4)],
)
def test_spare_processes(cores: int, sharing: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", sharing)
    assert parallel.spare_processes() == expected
