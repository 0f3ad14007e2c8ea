"""Where a task's data comes from: the folder the user names, or the built-in world."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlbench import catalog
from vlbench.core.domain import Domain
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.progress import Progress, Silent
from vlbench.core.task import Task
from vlbench.data.cache.folder import cache_folder
from vlbench.world.generate import ensure_world, is_world, world_info


@dataclass(frozen=True)
class Source:
    """A data root and what kind it is; a world states its own counts."""

    root: Path
    kind: Literal["world", "real"]
    counts: dict[str, dict[str, int]]


def find_source(data_root: Path | None, domain: Domain = "plain", progress: Progress | None = None) -> Source:
    """`data_root`, else `$VLBENCH_DATA`, else the built-in world, generated on first use.

    A data root that is itself a world is one. There is no fallback from a data root to the world.
    """
    progress = progress or Silent()
    given = data_root or (Path(os.environ["VLBENCH_DATA"]) if os.environ.get("VLBENCH_DATA") else None)
    if given is None:
        progress.say(f"no --data-root: using the built-in world ({domain})")
        given = ensure_world(cache_folder(), domain, progress=progress.step)
    if is_world(given):
        return Source(given, "world", world_info(given).counts)
    return Source(given, "real", {})


def load_task(
    name: str,
    data_root: Path | None = None,
    *,
    domain: Domain = "plain",
    tasks_dir: Path | None = None,
    allow_partial: bool = False,
    progress: Progress | None = None,
) -> Task:
    """A task over its data: the built-in world's where no data root is given.

    Raises:
        VlbenchError: no such task, data root or world data for it.
    """
    catalog.task_card(name, tasks_dir)  # an unknown name costs no world
    source = find_source(data_root, domain, progress)
    if source.kind == "world" and name not in source.counts:
        spoken = ", ".join(sorted(source.counts))
        raise DataError(f"the built-in world has no data for {name!r} (it has {spoken}): give --data-root")
    root = catalog.task_root(source.root, name)
    return catalog.load_task(
        name,
        root,
        source.kind,
        counts=_by_card_names(name, source, tasks_dir),
        tasks_dir=tasks_dir,
        allow_partial=allow_partial,
        data_root=source.root,
    )


def _by_card_names(name: str, source: Source, tasks_dir: Path | None) -> dict[str, int]:
    """The world's counts of a task; they must name splits of the card."""
    counts = source.counts.get(name, {})
    unknown = counts.keys() - catalog.task_card(name, tasks_dir).splits.keys()
    if unknown:
        raise VlbenchError(
            f"the world below {source.root} has splits {sorted(unknown)} of {name} that its card does not know"
        )
    return counts
