"""A job over the tiny world, its resources, and a learner to train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vlbench.core.progress import Silent
from vlbench.core.spec import RunSpec
from vlbench.engine.job import Job, plan


class Told:
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        pass


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make_job(tiny_world: Path, tmp_path: Path) -> Callable[..., Job]:
    """A planned job over the tiny world; any field of its spec may be given."""

    def make(**fields: object) -> Job:
        values = {"task": "nlvr2", "model": "fake", "data_root": tiny_world, "output_path": tmp_path / "runs"}
        return plan(RunSpec.model_validate({**values, **fields}), Silent())

    return make
