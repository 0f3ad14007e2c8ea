"""Opening a task of the project over any folder, without the catalogue."""

import importlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from vlbench.core.cards import TaskCard
from vlbench.core.task import Task
from vlbench.core.validate import parse
from vlbench.metrics.accuracy import accuracy, consistency

OpenTask = Callable[[str, Path], Task]


@pytest.fixture
def open_task() -> OpenTask:
    def opened(name: str, root: Path) -> Task:
        card = parse(TaskCard, yaml.safe_load((files("vlbench._tasks") / name / "task.yaml").read_text()), name)
        adapter = importlib.import_module(f"vlbench._tasks.{name}.adapter").examples
        return Task(card, root, "real", adapter, {"accuracy": accuracy, "consistency": consistency}, allow_partial=True)

    return opened
