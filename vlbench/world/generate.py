"""Make the built-in world on first use, wholly or not at all, and say what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from vlbench.core.domain import Domain
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.validate import Frozen, parse
from vlbench.data.cache.folder import atomic_write, cannot_write
from vlbench.world.exporters import gqa, karpathy, nlvr2, snli_ve, vqa2
from vlbench.world.language.statements import KINDS
from vlbench.world.lock import held
from vlbench.world.progress import Progress
from vlbench.world.scenes.pools import Pool, export_pool
from vlbench.world.scenes.scene import SPLITS, Scene, Split, make_scenes, write_scenes

WORLD_VERSION = 3
"""Raised whenever the same seed would give other bytes."""

Exporter: TypeAlias = Callable[[Path, Mapping[Split, Sequence[Scene]], Domain, int, Progress], dict[str, int]]
"""Writes a task over the scenes to a folder, in a domain, by a seed; says how many examples each split has."""

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


@dataclass(frozen=True, slots=True)
class WorldSize:
    """NLVR2 sets per split, eight examples and eight scenes each."""

    train: int = 1024
    dev: int = 128
    test1: int = 512
    test2: int = 128

    def sets(self, split: Split) -> int:
        """The sets of a split."""
        return {"train": self.train, "dev": self.dev, "test1": self.test1, "test2": self.test2}[split]


FULL = WorldSize()
TINY = WorldSize(24, 12, 12, 12)


class WorldInfo(Frozen):
    """What a world says of itself in its `world.json`.

    counts: task -> split, named as in the task's card -> examples. kinds: of NLVR2 statements.
    sha256: over the path and content of every other file.
    """

    version: int
    seed: int
    domain: Domain
    counts: dict[str, dict[str, int]]
    kinds: tuple[str, ...]
    sha256: str


def is_world(root: Path) -> bool:
    """Whether a complete world lies there."""
    return (root / _CARD).is_file()


def world_info(root: Path) -> WorldInfo:
    """What the world at `root` says of itself.

    Raises:
        DataError: there is no world, or its card cannot be read.
    """
    card = root / _CARD
    try:
        return parse(WorldInfo, json.loads(card.read_text(encoding="utf-8")), str(card))
    except (OSError, ValueError, VlbenchError) as error:
        raise DataError(f"no world can be read from {card} ({error}): delete {root} to have it made anew") from None


def world_folder(cache: Path, domain: Domain = "plain", seed: int = 0, *, size: WorldSize = FULL) -> Path:
    """Where the world of that domain, seed and size lies in the cache, or would."""
    suffix = "" if size == FULL else "-" + ".".join(map(str, astuple(size)))
    return cache / "world" / f"v{WORLD_VERSION}-s{seed}-{domain}{suffix}"


def ensure_world(
    cache: Path,
    domain: Domain = "plain",
    seed: int = 0,
    progress: Progress | None = None,
    *,
    size: WorldSize = FULL,
) -> Path:
    """The root of the complete world of that domain, seed and size; it is made if it is not in the cache yet.

    Of several processes that ask at once, one makes it and the others wait. Whatever stops the making, nothing
    stays that looks complete, and the next call sweeps away what did.

    Raises:
        DataError: it cannot be written there.
    """
    root = world_folder(cache, domain, seed, size=size)
    if is_world(root):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with held(root.parent / f".{root.name}.lock"):
            if not is_world(root):
                _make_beside(root, domain, seed, size, progress or (lambda what, done, total: None))
    except OSError as error:
        raise cannot_write(root, error) from None
    return root


def _make_beside(root: Path, domain: Domain, seed: int, size: WorldSize, progress: Progress) -> None:
    """Make the world in a folder of its own and move it to `root` at once; the caller holds the lock."""
    for remains in (root, *root.parent.glob(f".{root.name}.*.part")):
        shutil.rmtree(remains, ignore_errors=True)
    part = root.with_name(f".{root.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        _make(part, domain, seed, size, progress)
        os.sync()
        part.rename(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _make(root: Path, domain: Domain, seed: int, size: WorldSize, progress: Progress) -> None:
    """Everything below the root, its card last."""
    scenes = {split: make_scenes(split, size.sets(split) * nlvr2.SCENES_PER_SET, seed) for split in SPLITS}
    for split in SPLITS:
        write_scenes(root / "scenes" / f"{split}.jsonl", scenes[split])
    (root / "vocab.txt").write_bytes((resources.files("vlbench.world") / "vocab.txt").read_bytes())
    for pool in _POOLS:
        export_pool(root, pool, scenes, domain, seed, progress)
    counts = {name: export(root / name, scenes, domain, seed, progress) for name, export in _EXPORTERS.items()}
    info = WorldInfo(
        version=WORLD_VERSION, seed=seed, domain=domain, counts=counts, kinds=KINDS, sha256=content_sha256(root)
    )
    atomic_write(root / _CARD, info.model_dump_json(indent=2) + "\n")


def content_sha256(root: Path) -> str:
    """The hash over path and content of every file below the root but its card."""
    digest = hashlib.sha256()
    for path in sorted((path for path in root.rglob("*") if path.is_file() and path.name != _CARD), key=Path.as_posix):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
