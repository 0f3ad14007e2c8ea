"""Check that data matches its card, and hash it to detect changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlbench.core.columns import columns_of, queries_of, refs_of
from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Examples
from vlbench.core.garbage import without_garbage_collection
from vlbench.core.task import Task
from vlbench.data.cache.folder import cache_folder, file_sha256
from vlbench.data.cache.index import annotation_files
from vlbench.data.images.load import open_image
from vlbench.data.parallel import parallel_map
from vlbench.data.splits.overlap import Contents, size_of


@dataclass(frozen=True)
class FileHash:
    """The MD5 of an annotation file (`found`) and the one on the card (`expected`)."""

    path: Path
    found: str
    expected: str


@dataclass(frozen=True)
class SplitReport:
    """The result of `vlbench data check` for a split.

    expected: number of examples by the card or the synthetic world; None if unknown. groups: number of sets of
    dependent examples. images: number of distinct images of the examples. missing, undecodable: how many of them are.
    md5: of the files that have one on the card. faults: why the data should not be used. notes: what was not checked.
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
        """Whether there are no faults."""
        return not self.faults


def read_split(task: Task, split: str) -> Contents:
    """Read the examples and images of a split.

    Raises VlbenchError if the split is unknown, DataError if its annotations are missing or malformed.
    """
    contents = Contents(task.card.name, split)
    examples = task.reader(task.adapter, task.files(split))
    columns = columns_of(examples)
    for name, query, group in zip(columns.ids, queries_of(examples), columns.groups, strict=True):
        contents.add(name, query, group)
    return contents


def check_split(
    task: Task, contents: Contents, images: bool = True, progress: Callable[[int, int], None] | None = None
) -> SplitReport:
    """Count and hash a split's annotations, and decode all its images.

    With the task's `allow_partial`, another count is a note instead of a fault. images: False skips the images; they
    are also skipped if none of them exists. progress: called with the number of images decoded and of all images.
    Raises DataError if an annotation file was removed meanwhile.
    """
    split = contents.split
    expected = task.counts.get(split, task.card.splits[split].count if task.source == "real" else None)
    md5 = tuple(_hash_annotations(task, split))
    paths = sorted(set(contents.images.values()))
    existing = [path for path in paths if images and path.is_file()]
    missing = sorted(set(paths).difference(existing)) if existing else []
    undecodable = list(filter(None, parallel_map(_decoding_error, existing, progress)))
    faults, notes = _faults(contents, expected, md5, task.allow_partial)
    if missing:
        faults.append(f"{len(missing):,} of {len(paths):,} images are missing: {first_five(map(str, missing))}")
    if undecodable:
        faults.append(f"{len(undecodable):,} of {len(paths):,} images cannot be decoded: {first_five(undecodable)}")
    if not existing:
        notes.append("no images: only the annotations were checked" if images else "images were not checked")
    return SplitReport(
        split=split,
        examples=contents.examples,
        expected=expected,
        groups=len(contents.groups),
        images=len(paths),
        missing=len(missing) if existing else len(paths) if images else 0,
        undecodable=len(undecodable),
        md5=md5,
        faults=tuple(faults),
        notes=tuple(notes),
    )


@without_garbage_collection()
def manifest(task: Task, splits: Mapping[str, Examples]) -> str:
    """Return a hash that changes with the data of these splits; splits without examples, such as `none`, are ignored.

    It covers the content of the annotation and feature files, and the keys and sizes of the images (a missing one
    counts as such), but no paths. Raises VlbenchError if a split is unknown, DataError if a file cannot be read.
    """
    digest = hashlib.sha256()
    cache = cache_folder()
    images: dict[str, Path] = {}
    for split, examples in sorted(splits.items()):
        for name, path in annotation_files(task.files(split)) if len(examples) else ():
            digest.update(repr((split, name, file_sha256(path, cache))).encode())
        images.update((ref.key, ref.path) for ref in refs_of(examples))
    for key in sorted(images):
        digest.update(repr((key, size_of(images[key]))).encode())
    for path in task.features():
        digest.update(repr((path.name, file_sha256(path, cache))).encode())
    return digest.hexdigest()


def _hash_annotations(task: Task, split: str) -> Iterator[FileHash]:
    """The hashes of official files; the synthetic world has none."""
    files = task.files(split)
    for name, expected in files.card.md5.items() if task.source == "real" else ():
        path = files.path(name)
        with path.open("rb") as file:
            yield FileHash(path, hashlib.file_digest(file, "md5").hexdigest(), expected)


def _faults(
    contents: Contents, expected: int | None, md5: Sequence[FileHash], allow_partial: bool
) -> tuple[list[str], list[str]]:
    """The faults of the annotations, and notes."""
    faults: list[str] = []
    notes: list[str] = []
    if not contents.examples:
        faults.append("there are no examples")
    if contents.twice:
        faults.append(f"{len(contents.twice):,} ids occur twice: {first_five(contents.twice)}")
    if expected is not None and contents.examples != expected:
        (notes if allow_partial else faults).append(f"{contents.examples:,} examples where {expected:,} are expected")
    for file in md5:
        if file.found != file.expected:
            text = f"{file.path} has md5 {file.found} where the official file has {file.expected}"
            (notes if allow_partial else faults).append(text)
    return faults, notes


def _decoding_error(path: Path) -> str:
    """Why an image cannot be decoded; empty if it can."""
    try:
        open_image(path)
    except DataError as error:
        return error.message
    return ""
