"""Hashes of all files of a split, images included, kept at their first verification and compared at every later one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vlbench.core.errors import DataError, first_five
from vlbench.core.task import Task
from vlbench.data.cache.folder import atomic_write, cache_folder, file_sha256
from vlbench.data.cache.index import annotation_files
from vlbench.data.json.document import as_object, read_json
from vlbench.data.parallel import parallel_map

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Verified:
    """What a verification found.

    files: how many were hashed. new: how many of them had no kept hash and have one now. since: when the first were
    kept. differing: paths of files whose content is not that of the kept hash, or that are gone. place: of the hashes.
    """

    task: str
    split: str
    files: int
    new: int
    since: str
    differing: tuple[str, ...]
    place: Path

    @property
    def fault(self) -> str:
        """What is wrong, with the remedy; empty where nothing is."""
        if not self.differing:
            return ""
        several = len(self.differing) != 1
        return (
            f"{len(self.differing):,} file{'s' * several} of split {self.split!r} of {self.task} "
            f"{'are' if several else 'is'} not as verified on {self.since} "
            f"({first_five(self.differing)}): restore what was there, or delete {self.place} to accept what is now"
        )

    @property
    def said(self) -> str:
        """How many files were verified, and against what."""
        what = f"{self.files:,} files of split {self.split!r} of {self.task}"
        if self.new == self.files:
            return f"first verification of {what}: their hashes are kept in {self.place}"
        more = f", {self.new:,} new ones are kept as well" if self.new else ""
        return f"verified {what}: as on {self.since}{more}"


def verify(task: Task, split: str, images: Mapping[str, Path], progress: Report | None = None) -> Verified:
    """Hash a split's annotations, its images and the task's region features, whatever is remembered of them.

    Args:
        task: where the files lie; hashes are kept by its name, the real path of its root, and the split.
        split: its name.
        images: the split's, by their keys; those that are missing count only where they have been there before.
        progress: called with the number of files hashed and of files to hash.

    Raises:
        DataError: the kept hashes cannot be read or written.
    """
    files = {f"annotations/{name}": path for name, path in annotation_files(task.files(split))}
    files |= {f"features/{path.name}": path for path in task.features()}
    files |= {f"images/{key}": path for key, path in images.items()}
    found = _hashes(files, progress)
    name = f"{task.root.resolve()}\0{task.card.name}\0{split}"
    place = cache_folder() / "verified" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
    since, kept = _kept(place)
    differing = [str(files.get(name, name)) for name, digest in kept.items() if found.get(name) != digest]
    new = found.keys() - kept.keys()
    if new and not differing:
        content = {"root": str(task.root), "task": task.card.name, "split": split, "since": since}
        atomic_write(place, json.dumps({**content, "files": kept | found}, indent=1) + "\n")
    return Verified(task.card.name, split, len(found), len(new), since, tuple(sorted(differing)), place)


def _hashes(files: Mapping[str, Path], progress: Report | None) -> dict[str, str]:
    """The hashes of files by their names; of those that are there."""
    found: dict[str, str] = {}
    hashed = parallel_map(_sha256, list(files.values()))
    for done, (name, digest) in enumerate(zip(files, hashed, strict=True), start=1):
        if digest:
            found[name] = digest
        if progress:
            progress(done, len(files))
    return found


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path, cache_folder(), again=True) if path.is_file() else ""
    except DataError:
        return ""  # named as one that differs


def _kept(place: Path) -> tuple[str, dict[str, str]]:
    """The day of the first verification, today where there was none, and the hashes kept since."""
    if not place.is_file():
        return datetime.now(UTC).date().isoformat(), {}
    try:
        content = as_object(read_json(place), str(place))
        files = as_object(content.get("files"), str(place))
    except DataError as error:
        raise DataError(f"{error.message}; delete {place} to have the hashes kept anew") from None
    return str(content.get("since", "")), {name: str(digest) for name, digest in files.items()}
