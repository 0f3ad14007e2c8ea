"""Generate the synthetic world on first use, completely or not at all, and read the card that describes it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
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
from vlbench.world.scenes.pools import Pool, export_pool
from vlbench.world.scenes.scene import SPLITS, Scenes, Split, make_scenes, write_scenes

WORLD_VERSION = 3
"""Increased whenever the same seed gives different bytes."""

Exporter: TypeAlias = Callable[[Path, Scenes, Domain, int, ProgressCallback], dict[str, int]]
"""Writes a task over the scenes to a folder, in a domain, by a seed; returns the number of examples of each split."""

_EXPORTERS: dict[str, Exporter] = {
    nlvr2.TASK: nlvr2.export,
    vqa2.TASK: vqa2.export,
    gqa.TASK: gqa.export,
    snli_ve.TASK: snli_ve.export,
    "coco_retrieval": karpathy.export_coco,
    "flickr30k_retrieval": karpathy.export_flickr30k,
}
_POOLS: tuple[Pool, ...] = ("coco", "flickr30k", "gqa")
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

    counts: task -> split, named as in the task's card -> number of examples. kinds: of NLVR2 statements.
    sha256: over the path and content of every other file.
    """

    version: int
    seed: int
    domain: Domain
    counts: dict[str, dict[str, int]]
    kinds: tuple[str, ...]
    sha256: str


def is_world(root: Path) -> bool:
    """Whether the folder holds a complete synthetic world."""
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
    size: WorldSize = FULL,
    on_wait: Callable[[], None] | None = None,
) -> Path:
    """The root of the synthetic world of that domain, seed and size; it is generated if the cache lacks it.

    If several processes call this at once, one generates and the others wait for its file lock. The kernel releases the
    lock when its holder dies. An interrupted generation leaves nothing that looks complete, and the next call deletes
    what it left. on_wait: called once if this process waits. Raises DataError if the cache cannot be written.
    """
    root = world_folder(cache, domain, seed, size=size)
    if is_world(root):
        return root
    with only_writer(root, on_wait):
        if not is_world(root):
            try:
                _make_and_move(root, domain, seed, size, progress or (lambda what, done, total: None))
            except OSError as error:
                raise cannot_write(root, error) from None
    return root


def _make_and_move(root: Path, domain: Domain, seed: int, size: WorldSize, progress: ProgressCallback) -> None:
    """Generate into a temporary folder, then rename it to `root`; the caller holds the lock."""
    for incomplete in (root, *root.parent.glob(f".{root.name}.*.part")):
        shutil.rmtree(incomplete, ignore_errors=True)
    part = root.with_name(f".{root.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        _make(part, domain, seed, size, progress)
        os.sync()
        part.rename(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _make(root: Path, domain: Domain, seed: int, size: WorldSize, progress: ProgressCallback) -> None:
    """Write everything below the root, its card last."""
    scenes = {split: make_scenes(split, size.sets(split) * nlvr2.SCENES_PER_SET, seed) for split in SPLITS}
    for split in SPLITS:
        write_scenes(root / "scenes" / f"{split}.jsonl", scenes[split])
    (root / "vocab.txt").write_bytes((resources.files("vlbench.world") / "vocab.txt").read_bytes())
    for pool in _POOLS:
        export_pool(root, pool, scenes, domain, seed, progress)
    counts = {name: export(root / name, scenes, domain, seed, progress) for name, export in _EXPORTERS.items()}
    known = {"version": WORLD_VERSION, "seed": seed, "domain": domain, "counts": counts, "kinds": STATEMENT_KINDS}
    info = WorldInfo.model_validate(known | {"sha256": content_sha256(root)})
    atomic_write(root / _CARD, info.model_dump_json(indent=2) + "\n")


def content_sha256(root: Path) -> str:
    """The hash over path and content of every file below the root except its card."""
    digest = hashlib.sha256()
    for path in sorted((path for path in root.rglob("*") if path.is_file() and path.name != _CARD), key=Path.as_posix):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
