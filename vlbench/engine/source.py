"""Find a task's data: in the folder that the user names, or in the built-in synthetic world."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from vlbench import catalog
from vlbench.core.domain import Domain
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.progress import Progress, Silent
from vlbench.core.task import Task
from vlbench.data.cache.folder import cache_folder
from vlbench.world.generate import WAITING, WORLD_TASKS, ensure_world, is_world, world_info


@dataclass(frozen=True)
class DataRoot:
    """A data root. kind: of its data. counts: task -> split -> number of examples, of a synthetic world only."""

    path: Path
    kind: Literal["world", "real"]
    counts: dict[str, dict[str, int]]


def find_data_root(
    data_root: Path | None, domain: Domain = "plain", progress: Progress | None = None, *, task: str | None = None
) -> DataRoot:
    """`data_root`, else `$VLBENCH_DATA`, else the built-in world, whose part for the task is generated on first use.

    A folder that was generated as a world has kind `world`. A given folder never falls back to the built-in world.
    task: None for all tasks of the built-in world. Raises DataError if the built-in world does not have the task.
    """
    progress, given = progress or Silent(), given_root(data_root)
    if given is None:
        progress.say(f"no --data-root: using the built-in world ({domain})")
        if task is not None and task not in WORLD_TASKS:
            raise _without_task(task, WORLD_TASKS)
        given = ensure_world(
            cache_folder(),
            domain,
            progress=progress.step,
            tasks=WORLD_TASKS if task is None else (task,),
            on_wait=partial(progress.say, WAITING),
        )
    given = given.absolute()  # images are opened while code of a plug-in runs, which may call os.chdir
    if is_world(given):
        return DataRoot(given, "world", world_info(given).counts)
    return DataRoot(given, "real", {})


def given_root(data_root: Path | None) -> Path | None:
    """`data_root`, else `$VLBENCH_DATA`; None for the built-in world."""
    return data_root or (Path(os.environ["VLBENCH_DATA"]) if os.environ.get("VLBENCH_DATA") else None)


def _without_task(task: str, known: Collection[str]) -> DataError:
    remedy = "run vlbench data world to generate it, or give" if task in WORLD_TASKS else "give"
    listed = ", ".join(sorted(known))
    return DataError(f"the built-in world has no data for {task!r} (it has {listed}): {remedy} --data-root")


def load_task(
    name: str,
    data_root: Path | None = None,
    *,
    domain: Domain = "plain",
    tasks_dir: Path | None = None,
    allow_partial: bool = False,
    progress: Progress | None = None,
) -> Task:
    """A task with its data; without a data root, that of the built-in world.

    Raises:
        VlbenchError: an unknown task, no such data root, or a world without data for the task or with other splits.
    """
    catalog.task_card(name, tasks_dir)  # check the name before a world is generated
    data = find_data_root(data_root, domain, progress, task=name)
    if data.kind == "world" and name not in data.counts:
        raise _without_task(name, data.counts)
    counts = data.counts.get(name, {})
    unknown = counts.keys() - catalog.task_card(name, tasks_dir).splits.keys()
    if unknown:
        raise VlbenchError(f"the world in {data.path} has splits {sorted(unknown)} of {name} that are not on its card")
    return catalog.load_task(
        name,
        catalog.task_root(data.path, name),
        data.kind,
        counts=counts,
        tasks_dir=tasks_dir,
        allow_partial=allow_partial,
        data_root=data.path,
    )
