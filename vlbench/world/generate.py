"""Generate tasks of the synthetic world on first use, and read the card that says which of them the folder holds.

A task is generated completely or not at all, with the same bytes whichever tasks were generated before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection
from dataclasses import astuple, dataclass
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from vlbench.core.domain import Domain
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.validate import Frozen, parse
from vlbench.data.cache.folder import atomic_write, cannot_write
from vlbench.data.cache.lock import only_writer
from vlbench.world.exporters import gqa, karpathy, nlvr2, snli_ve, vqa2
from vlbench.world.language.statements import STATEMENT_KINDS
from vlbench.world.output import ProgressCallback
from vlbench.world.scenes.images import ImagePlan
from vlbench.world.scenes.pools import Pool, plan_pool
from vlbench.world.scenes.scene import SPLITS, Scenes, Split, make_scenes, write_scenes

WORLD_VERSION = 3
"""Increased whenever the same seed gives different bytes."""

Exporter: TypeAlias = Callable[[Path, Scenes, int, ImagePlan, ProgressCallback], dict[str, int]]
"""Writes a task over the scenes to a folder, by a seed, and plans its images; returns the number of examples by split.

A task has the same text in all domains.
"""

_EXPORTERS: dict[str, Exporter] = {
    nlvr2.TASK: nlvr2.export,
    vqa2.TASK: vqa2.export,
    gqa.TASK: gqa.export,
    snli_ve.TASK: snli_ve.export,
    "coco_retrieval": karpathy.export_coco,
    "flickr30k_retrieval": karpathy.export_flickr30k,
}
WORLD_TASKS = tuple(_EXPORTERS)
_POOLS: dict[str, Pool] = {
    vqa2.TASK: "coco",
    gqa.TASK: "gqa",
    snli_ve.TASK: "flickr30k",
    "coco_retrieval": "coco",
    "flickr30k_retrieval": "flickr30k",
}
"""The collection whose images a task shows; NLVR2 has images of its own."""
_CARD = "world.json"
WAITING = "waiting for another process that generates the same world"
"""What to say while `ensure_world` waits."""


@dataclass(frozen=True, slots=True)
class WorldSize:
    """Number of NLVR2 sets per split; each set has eight examples and eight scenes."""

    train: int = 1024
    dev: int = 128
    test1: int = 512
    test2: int = 128

    def sets(self, split: Split) -> int:
        """The number of sets of a split."""
        return {"train": self.train, "dev": self.dev, "test1": self.test1, "test2": self.test2}[split]


FULL = WorldSize()
TINY = WorldSize(24, 12, 12, 12)


class WorldInfo(Frozen):
    """The card of a synthetic world, stored as its `world.json`.

    counts: generated task -> split, named as in the task's card -> number of examples. kinds: of NLVR2 statements.
    sha256: over the path and content of every other file.
    """

    version: int
    seed: int
    domain: Domain
    counts: dict[str, dict[str, int]]
    kinds: tuple[str, ...]
    sha256: str


def is_world(root: Path) -> bool:
    """Whether the folder holds a synthetic world, of some tasks or all."""
    return os.access(root / _CARD, os.R_OK)  # False, not an error, for a cache of another user


def world_info(root: Path) -> WorldInfo:
    """The card of the synthetic world at `root`.

    Raises DataError if there is no synthetic world, or its card cannot be read.
    """
    card = root / _CARD
    try:
        return parse(WorldInfo, json.loads(card.read_text(encoding="utf-8")), str(card))
    except (OSError, ValueError, VlbenchError) as error:
        raise DataError(
            f"cannot read the synthetic world's card {card} ({error}): delete {root} to generate it again"
        ) from None


def has_tasks(root: Path, tasks: Collection[str]) -> bool:
    """Whether the folder holds a synthetic world with these tasks. Raises DataError if its card cannot be read."""
    return is_world(root) and world_info(root).counts.keys() >= set(tasks)


def world_folder(cache: Path, domain: Domain = "plain", seed: int = 0, *, size: WorldSize = FULL) -> Path:
    """The folder in the cache for the synthetic world of that domain, seed and size; it may not exist yet."""
    suffix = "" if size == FULL else "-" + ".".join(map(str, astuple(size)))
    return cache / "world" / f"v{WORLD_VERSION}-s{seed}-{domain}{suffix}"


def ensure_world(
    cache: Path,
    domain: Domain = "plain",
    seed: int = 0,
    progress: ProgressCallback | None = None,
    *,
    tasks: Collection[str] = WORLD_TASKS,
    size: WorldSize = FULL,
    on_wait: Callable[[], None] | None = None,
) -> Path:
    """The root of the synthetic world of that domain, seed and size; the tasks that it lacks are generated.

    If several processes call this at once, one generates and the others wait for its file lock. The kernel releases the
    lock when its holder dies. An interrupted generation leaves nothing that looks complete, and the next call deletes
    what it left. tasks: some of `WORLD_TASKS`. on_wait: called once if this process waits. Raises DataError if the
    cache cannot be written.
    """
    root = world_folder(cache, domain, seed, size=size)
    if has_tasks(root, tasks):
        return root
    with only_writer(root, on_wait):
        if not has_tasks(root, tasks):
            try:
                _add_tasks(root, tasks, domain, seed, size, progress or (lambda what, done, total: None))
            except OSError as error:
                raise cannot_write(root, error) from None
    return root


def _add_tasks(
    root: Path, tasks: Collection[str], domain: Domain, seed: int, size: WorldSize, progress: ProgressCallback
) -> None:
    """Generate the missing tasks in a temporary folder, move them to `root`, then write the card that lists them.

    The caller holds the lock.
    """
    counts = dict(world_info(root).counts) if is_world(root) else {}
    _delete_unlisted(root, counts)
    part = root.with_name(f".{root.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        scenes = {split: make_scenes(split, size.sets(split) * nlvr2.SCENES_PER_SET, seed) for split in SPLITS}
        if not counts:
            _write_shared(part, scenes)
        missing, plan = [task for task in tasks if task not in counts], ImagePlan()
        for task in missing:
            counts[task] = _EXPORTERS[task](part / task, scenes, seed, plan, progress)
        for pool in {_POOLS[task] for task in missing if task in _POOLS}:
            if not (root / pool).exists():
                plan_pool(part, pool, scenes, seed, plan)
        plan.make(domain, seed, progress)
        root.mkdir(exist_ok=True)
        for entry in sorted(part.iterdir()):
            entry.rename(root / entry.name)
        known = {"version": WORLD_VERSION, "seed": seed, "domain": domain, "kinds": STATEMENT_KINDS}
        in_order = {task: counts[task] for task in WORLD_TASKS if task in counts}
        info = WorldInfo.model_validate(known | {"counts": in_order, "sha256": content_sha256(root)})
        os.sync()
        atomic_write(root / _CARD, info.model_dump_json(indent=2) + "\n")
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _delete_unlisted(root: Path, tasks: Collection[str]) -> None:
    """Delete what an interrupted generation left: folders of tasks that no card lists, and temporary folders."""
    listed = {*tasks, *(_POOLS[task] for task in tasks if task in _POOLS)}
    unlisted = [root / name for name in {*WORLD_TASKS, *_POOLS.values()} - listed] if tasks else [root]
    for folder in (*unlisted, *root.parent.glob(f".{root.name}.*.part")):
        shutil.rmtree(folder, ignore_errors=True)


def _write_shared(root: Path, scenes: Scenes) -> None:
    """Write what all tasks share: the scenes and the words."""
    for split in SPLITS:
        write_scenes(root / "scenes" / f"{split}.jsonl", scenes[split])
    (root / "vocab.txt").write_bytes((resources.files("vlbench.world") / "vocab.txt").read_bytes())


def content_sha256(root: Path) -> str:
    """The hash over path and content of every file below the root except its card."""
    digest = hashlib.sha256()
    paths = (Path(folder, name).relative_to(root).as_posix() for folder, _, names in os.walk(root) for name in names)
    for path in sorted(path for path in paths if path != _CARD):
        digest.update(f"{path}\n".encode())
        digest.update(hashlib.sha256((root / path).read_bytes()).digest())
    return digest.hexdigest()
