"""The tasks and models on disk, each over data that it can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vlbench.core.task import Task
from vlbench.engine.source import load_task
from vlbench.world.generate import world_info

SAMPLES = Path(__file__).parent / "samples"
"""A few lines in the official format of each task that the built-in world does not speak; no pictures."""


@pytest.fixture
def open_task(tiny_world: Path) -> Callable[[str], Task]:
    """A task over the tiny world where it speaks the task, else over the task's sample."""

    def opened(name: str) -> Task:
        if name in world_info(tiny_world).counts:
            return load_task(name, tiny_world)
        assert (SAMPLES / name).is_dir(), f"the world does not speak {name}: put a sample into {SAMPLES / name}"
        return load_task(name, SAMPLES / name, allow_partial=True)

    return opened
