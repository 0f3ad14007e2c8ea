"""Record the hashes of all files of a split, images included, and compare them at every later verification."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from vlbench.core.errors import DataError, first_five
from vlbench.core.task import Task
from vlbench.data.cache.folder import CannotWrite, atomic_write, cache_folder, file_sha256
from vlbench.data.cache.index import annotation_files
from vlbench.data.cache.lock import only_writer
from vlbench.data.json.document import as_object, read_json
from vlbench.data.parallel import parallel_map


@dataclass(frozen=True)
class Verified:
    """The result of a verification.

    files: number of files hashed. new: number of those without a recorded hash before. since: the day of the first
    verification. differing: paths of files whose content has another hash than the recorded one, or that are missing.
    place: the file of the recorded hashes. recorded: whether new hashes could be written to it.
    """

    task: str
    split: str
    files: int
    new: int
    since: str
    differing: tuple[str, ...]
    place: Path
    recorded: bool = True

    @property
    def fault(self) -> str:
        """An error message with the remedy; empty if nothing differs."""
        if not self.differing:
            return ""
        several = len(self.differing) != 1
        return (
            f"{len(self.differing):,} file{'s' * several} of split {self.split!r} of {self.task} "
            f"{'are' if several else 'is'} not as verified on {self.since} "
            f"({first_five(self.differing)}): restore what was there, or delete {self.place} to accept the "
            f"current files"
        )

    @property
    def said(self) -> str:
        """A message with the number of verified files and the day of the recorded hashes."""
        files = f"{self.files:,} files of split {self.split!r} of {self.task}"
        if self.new == self.files:
            return f"first verification of {files}: their hashes {self._are_recorded} in {self.place}"
        more = f", the hashes of {self.new:,} new ones {self._are_recorded}" if self.new else ""
        return f"verified {files}: as on {self.since}{more}"

    @property
    def _are_recorded(self) -> str:
        return (
            "are recorded"
            if self.recorded
            else "cannot be recorded (set VLBENCH_CACHE to a folder that can be written)"
        )


def verify(
    task: Task, split: str, images: Mapping[str, Path], progress: Callable[[int, int], None] | None = None
) -> Verified:
    """Hash a split's annotations, images and region features, ignoring hashes in the cache, and compare the hashes.

    Hashes are recorded by the task's name, the real path of its root, and the split. images: by key; a missing one is a
    difference only if its hash is recorded. progress: called with the number of files hashed and of all files. Raises
    DataError if the recorded hashes cannot be read; in a cache that cannot be written, none are recorded.
    """
    files = {f"annotations/{name}": path for name, path in annotation_files(task.files(split))}
    files |= {f"features/{path.name}": path for path in task.features()}
    files |= {f"images/{key}": path for key, path in images.items()}
    digests = parallel_map(_sha256, list(files.values()), progress)
    hashes = {name: digest for name, digest in zip(files, digests, strict=True) if digest}
    name = f"{task.root.resolve()}\0{task.card.name}\0{split}"
    path = cache_folder() / "verified" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
    known = Verified(task.card.name, split, len(hashes), 0, "", (), path)
    content = {"root": str(task.root), "task": task.card.name, "split": split}
    try:
        with only_writer(path):
            return _compare(known, hashes, files, lambda text: atomic_write(path, text), content)
    except CannotWrite:
        return replace(_compare(known, hashes, files, lambda text: None, content), recorded=False)


def _compare(
    known: Verified,
    hashes: Mapping[str, str],
    files: Mapping[str, Path],
    write: Callable[[str], None],
    content: dict[str, str],
) -> Verified:
    """Compare the hashes with the recorded ones, and write new ones with the rest of the file's content."""
    since, recorded = _read_recorded(known.place)
    differing = [str(files.get(name, name)) for name, digest in recorded.items() if hashes.get(name) != digest]
    new = hashes.keys() - recorded.keys()
    if new and not differing:
        write(json.dumps(content | {"since": since, "files": {**recorded, **hashes}}, indent=1) + "\n")
    return replace(known, new=len(new), since=since, differing=tuple(sorted(differing)))


def _sha256(path: Path) -> str:
    """The hash of a file; empty if it does not exist or cannot be read."""
    try:
        return file_sha256(path, cache_folder(), again=True) if path.is_file() else ""
    except DataError:
        return ""  # reported as differing


def _read_recorded(path: Path) -> tuple[str, dict[str, str]]:
    """The day of the first verification (today if there was none) and the recorded hashes."""
    if not os.access(path, os.F_OK):
        return datetime.now(UTC).date().isoformat(), {}
    try:
        content = as_object(read_json(path), str(path))
        files = as_object(content.get("files"), str(path))
    except DataError as error:
        raise DataError(f"{error.message}; delete {path} to record the hashes again") from None
    return str(content.get("since", "")), {name: str(digest) for name, digest in files.items()}
