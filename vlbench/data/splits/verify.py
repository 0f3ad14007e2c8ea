"""Is the data what the card says, and is it still the same data?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.task import Task
from vlbench.data.cache.folder import cache_folder, file_sha256
from vlbench.data.cache.index import annotation_files
from vlbench.data.images.load import open_image
from vlbench.data.parallel import parallel_map
from vlbench.data.splits.overlap import Contents, size_of


@dataclass(frozen=True)
class FileHash:
    """The md5 of an annotation file, beside the one on the card."""

    path: Path
    found: str
    expected: str


@dataclass(frozen=True)
class SplitReport:
    """What `vlbench data check` found in a split.

    expected: examples by the card or the world's own count, None where neither says. groups: sets of dependent
    examples. images: different pictures asked for. missing, undecodable: how many of them are. md5: of the files the
    card has one for. faults: why the data should not be used. notes: what was not checked.
    """

    split: str
    examples: int
    expected: int | None
    groups: int
    images: int
    missing: int
    undecodable: int
    md5: tuple[FileHash, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with what was checked."""
        return not self.faults


def read_split(task: Task, split: str) -> Contents:
    """What is in a split: its examples by id, and the pictures they ask for.

    Raises:
        VlbenchError: an unknown split.
        DataError: the annotations are missing or malformed, file and line named.
    """
    contents = Contents(task.card.name, split)
    for example in task.reader(task.adapter, task.files(split)):
        contents.add(example)
    return contents


def check_split(
    task: Task, contents: Contents, images: bool = True, progress: Callable[[int, int], None] | None = None
) -> SplitReport:
    """Count and hash a split's annotations, and decode every picture.

    Args:
        task: the task; with `allow_partial` a differing count is a note, no fault.
        contents: what `read_split` found.
        images: False leaves the pictures alone; so does a split of which no picture is there.
        progress: told pictures decoded and pictures to decode.

    Raises:
        DataError: an annotation file went away meanwhile.
    """
    split = contents.split
    expected = task.counts.get(split, task.card.splits[split].count if task.source == "real" else None)
    md5 = tuple(_hashes(task, split))
    paths = sorted(set(contents.pictures.values()))
    there = [path for path in paths if images and path.is_file()]
    missing = sorted(set(paths).difference(there)) if there else []
    broken = list(_undecodable(there, progress))
    faults, notes = _faults(contents, expected, md5, task.allow_partial)
    if missing:
        faults.append(f"{len(missing):,} of {len(paths):,} pictures are missing: {first_five(map(str, missing))}")
    if broken:
        faults.append(f"{len(broken):,} of {len(paths):,} pictures cannot be decoded: {first_five(broken)}")
    if not there:
        notes.append("no pictures: only the annotations were checked" if images else "pictures were not checked")
    return SplitReport(
        split=split,
        examples=contents.examples,
        expected=expected,
        groups=len(contents.groups),
        images=len(paths),
        missing=len(missing) if there else len(paths) if images else 0,
        undecodable=len(broken),
        md5=md5,
        faults=tuple(faults),
        notes=tuple(notes),
    )


def manifest(task: Task, splits: Mapping[str, Sequence[Example[Any]]]) -> str:
    """A hash that changes when the data of these splits does; those without examples, as `none`, do not count.

    It covers the content of the annotation and feature files, and names and sizes of the pictures they ask for (a
    missing one counts as such); not where they lie.

    Raises:
        VlbenchError: an unknown split.
        DataError: a file that cannot be read.
    """
    digest = hashlib.sha256()
    cache = cache_folder()
    pictures: dict[str, Path] = {}
    for split, examples in sorted(splits.items()):
        for name, path in annotation_files(task.files(split)) if len(examples) else ():
            digest.update(repr((split, name, file_sha256(path, cache))).encode())
        for example in examples:
            pictures.update((ref.key, ref.path) for ref in example.query.images)
    for key in sorted(pictures):
        digest.update(repr((key, size_of(pictures[key]))).encode())
    for path in task.features():
        digest.update(repr((path.name, file_sha256(path, cache))).encode())
    return digest.hexdigest()


def _hashes(task: Task, split: str) -> Iterator[FileHash]:
    """The official files' hashes; the built-in world has none."""
    files = task.files(split)
    for name, expected in files.card.md5.items() if task.source == "real" else ():
        path = files.path(name)
        with path.open("rb") as file:
            yield FileHash(path, hashlib.file_digest(file, "md5").hexdigest(), expected)


def _faults(
    contents: Contents, expected: int | None, md5: Sequence[FileHash], allow_partial: bool
) -> tuple[list[str], list[str]]:
    """What is wrong with the annotations, and what is only remarkable."""
    faults: list[str] = []
    notes: list[str] = []
    if not contents.examples:
        faults.append("there are no examples")
    if contents.twice:
        faults.append(f"{len(contents.twice):,} ids come twice: {first_five(contents.twice)}")
    if expected is not None and contents.examples != expected:
        (notes if allow_partial else faults).append(f"{contents.examples:,} examples where {expected:,} are expected")
    for file in md5:
        if file.found != file.expected:
            text = f"{file.path} has md5 {file.found} where the official file has {file.expected}"
            (notes if allow_partial else faults).append(text)
    return faults, notes


def _undecodable(paths: Sequence[Path], progress: Callable[[int, int], None] | None) -> Iterator[str]:
    for done, fault in enumerate(parallel_map(_fault, paths), start=1):
        if fault:
            yield fault
        if progress:
            progress(done, len(paths))


def _fault(path: Path) -> str:
    try:
        open_image(path)
    except DataError as error:
        return error.message
    return ""
