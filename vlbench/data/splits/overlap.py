"""Find what splits share: examples, images by name, and images with the same bytes under another name."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from vlbench.core.cards import TaskCard
from vlbench.core.examples import Query
from vlbench.data.parallel import parallel_map

OverlapVerdict = Literal["WRONG", "copies", "known", "shared"]
Digests = Mapping[Path, str]
"""The sha256 of files, or their size if no other file can equal them; files that cannot be read are absent."""


@dataclass
class Contents:
    """The examples and images of a split.

    examples: their number. queries: id -> hash of the text and the image names. images: name -> file. twice: repeated
    ids.
    """

    task: str
    split: str
    examples: int = 0
    queries: dict[str, int] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    twice: set[str] = field(default_factory=set)

    def add(self, name: str, query: Query, group: str) -> None:
        """Count the example with this id."""
        self.examples += 1
        if name in self.queries:
            self.twice.add(name)
        self.queries[name] = hash((query.text, tuple(ref.key for ref in query.images)))
        self.images.update((ref.key, ref.path) for ref in query.images)
        self.groups.add(group)


@dataclass(frozen=True)
class Shared:
    """What two splits have in common.

    examples: ids with the same query in both. renamed: ids with another query in the other split. pictures: names of
    shared images. copies: pairs of images with the same bytes under two names, as `a = b`; an image may be in several.
    copied: the images of the first split that are in such a pair, each once; copied_other: those of the other split.
    """

    examples: tuple[str, ...]
    renamed: tuple[str, ...]
    pictures: tuple[str, ...]
    copies: tuple[str, ...]
    copied: tuple[str, ...] = ()
    copied_other: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.examples or self.renamed or self.pictures or self.copies)


@dataclass(frozen=True)
class Overlap:
    """Two splits of a task that have something in common.

    verdict: `WRONG` if examples or images of the train split are in another one, or those of the select split in the
    report split; `copies` if only the bytes of images are, under other names, as also in official data; `known` if the
    card states the overlap; `shared` otherwise.
    """

    split: str
    other: str
    shared: Shared
    verdict: OverlapVerdict


def digests(contents: Sequence[Contents], progress: Callable[[int, int], None] | None = None) -> Digests:
    """Return digests of the images of splits: the sha256 of those as large as one of another split, the size of others.

    Files are read on all cores; few files of different splits have the same size. progress: called with the number of
    files read and of all files to read.
    """
    splits: dict[Path, set[int]] = defaultdict(set)
    for number, split in enumerate(contents):
        for path in split.images.values():
            splits[path].add(number)
    paths = list(splits)
    sizes = {path: size for path, size in zip(paths, parallel_map(size_of, paths), strict=True) if size >= 0}
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path, size in sizes.items():
        by_size[size].append(path)
    ambiguous = [path for group in by_size.values() if _is_across_splits(group, splits) for path in group]
    digest_of = {path: f"{size} bytes" for path, size in sizes.items()}
    for path, digest in zip(ambiguous, parallel_map(_sha256, ambiguous, progress), strict=True):
        digest_of[path] = digest or digest_of[path]
    return digest_of


def shared(one: Contents, other: Contents, digest_of: Digests, by_name: bool = True) -> Shared:
    """Compare two splits. Images without a digest are compared by name.

    by_name: False if names are not comparable, since the splits are of tasks without a common image folder.
    """
    ids = one.queries.keys() & other.queries.keys()
    same = {name for name in ids if one.queries[name] == other.queries[name]}
    names = {name for name in one.images.keys() & other.images.keys() if _same(name, one, other, digest_of, by_name)}
    pairs = list(_copies(one, other, digest_of))
    return Shared(
        examples=tuple(sorted(same)),
        renamed=tuple(sorted(ids - same)),
        pictures=tuple(sorted(names)),
        copies=tuple(sorted(f"{name} = {twin}" for name, twin in pairs)),
        copied=tuple(sorted({name for name, _ in pairs})),
        copied_other=tuple(sorted({twin for _, twin in pairs})),
    )


def overlaps(card: TaskCard, contents: Sequence[Contents], digest_of: Digests) -> list[Overlap]:
    """Return every two splits of the task that have something in common, in the order of `contents`."""
    pairs = []
    for one, other in combinations(contents, 2):
        both = shared(one, other, digest_of)
        if both:
            pairs.append(Overlap(one.split, other.split, both, _verdict(card, one.split, other.split, both)))
    return pairs


def _verdict(card: TaskCard, one: str, other: str, both: Shared) -> OverlapVerdict:
    if other in card.splits[one].overlaps or one in card.splits[other].overlaps:
        return "known"
    must_differ = card.train_split in (one, other) or {one, other} == {card.select_on, card.report_split}
    if must_differ and (both.examples or both.pictures):
        return "WRONG"
    return "copies" if must_differ and both.copies else "shared"


def _same(name: str, one: Contents, other: Contents, digest_of: Digests, by_name: bool) -> bool:
    """Whether a name is the same image in both: one file, the same bytes, or the same file name without digests."""
    paths = one.images[name], other.images[name]
    if paths[0] == paths[1]:
        return True
    if all(path in digest_of for path in paths):
        return digest_of[paths[0]] == digest_of[paths[1]]
    return by_name and paths[0].name == paths[1].name


def _copies(one: Contents, other: Contents, digest_of: Digests) -> Iterable[tuple[str, str]]:
    """Pairs of an image of `one` and an image of `other` with the same bytes, another name and another path."""
    by_digest: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for name, path in other.images.items():
        if _is_hash(digest_of.get(path)):
            by_digest[digest_of[path]].append((name, path))
    for name, path in one.images.items():
        for twin, twin_path in by_digest.get(digest_of.get(path, ""), ()):
            if twin != name and twin_path != path:
                yield name, twin


def _is_hash(digest: str | None) -> bool:
    return digest is not None and not digest.endswith("bytes")


def _is_across_splits(group: Sequence[Path], splits: Mapping[Path, set[int]]) -> bool:
    """Whether files of one size are in different splits."""
    return len(group) > 1 and len(set().union(*(splits[path] for path in group))) > 1


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; -1 if it cannot be read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
