"""Temporary folders of processes that were killed are removed by the next process that needs one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vlbench.data.cache.scratch import scratch_folder


def test_folders_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as living:
        dead, unlocked, starting = (tmp_path / f"vlbench-scratch-{name}" for name in ("dead", "unlocked", "starting"))
        foreign = tmp_path / "vlbench-results"
        for folder in (dead, unlocked, starting, foreign):
            folder.mkdir()
        (dead / ".lock").touch()
        (dead / "weights").touch()
        for folder in (living, dead, unlocked, foreign):
            os.utime(folder, (0, 0))
        with scratch_folder() as own:
            assert sorted(tmp_path.iterdir()) == sorted([foreign, living, own, starting])
    assert sorted(tmp_path.iterdir()) == [foreign, starting]
