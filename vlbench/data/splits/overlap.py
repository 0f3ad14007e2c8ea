"""What splits share: examples, pictures by name, and pictures whose bytes come again under another name."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from vlbench.core.cards import TaskCard
from vlbench.core.examples import Example
from vlbench.data.parallel import parallel_map

Verdict = Literal["WRONG", "copies", "known", "shared"]
Told = Callable[[int, int], None]
Digests = Mapping[Path, str]
"""The sha256 of files, or, of those that no other file can equal, their size; files that cannot be read are absent."""


@dataclass
class Contents:
    """What a split holds.

    asked: id -> hash of the text and of the names of the pictures. pictures: name -> file. twice: ids that came again.
    """

    task: str
    split: str
    examples: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    twice: set[str] = field(default_factory=set)

    def add(self, example: Example[Any]) -> None:
        """Take one more example in."""
        query = example.query
        self.examples += 1
        if example.id in self.asked:
            self.twice.add(example.id)
        self.asked[example.id] = hash((query.text, tuple(ref.key for ref in query.images)))
        self.pictures.update((ref.key, ref.path) for ref in query.images)
        self.groups.add(example.group)


@dataclass(frozen=True)
class Shared:
    """What two splits both hold.

    examples: ids that ask the same in both. renamed: ids that ask something else in the other. pictures: names of the
    same image. copies: pairs of images with the same bytes under two names, as `a = b`; an image may be in several.
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
    """Two splits of a task that share something.

    verdict: WRONG where what is trained on is also selected or reported on, or what is selected on is also reported on;
    `copies` where that is so of bytes under other names alone, which official pictures have too; `known` where the card
    says that they overlap.
    """

    split: str
    other: str
    shared: Shared
    verdict: Verdict


def digests(contents: Sequence[Contents], progress: Told | None = None) -> Digests:
    """What tells the pictures of splits apart: their sizes, and the sha256 of those as long as one of another split.

    Reading is shared out over all cores; most of it is spared, since few files of different splits are equally long.

    Args:
        contents: splits of one or several tasks.
        progress: told files read and files to read.
    """
    splits: dict[Path, set[int]] = defaultdict(set)
    for number, one in enumerate(contents):
        for path in one.pictures.values():
            splits[path].add(number)
    paths = list(splits)
    sizes = {path: size for path, size in zip(paths, parallel_map(size_of, paths), strict=True) if size >= 0}
    alike: dict[int, list[Path]] = defaultdict(list)
    for path, size in sizes.items():
        alike[size].append(path)
    doubtful = [path for group in alike.values() if _across(group, splits) for path in group]
    found = {path: f"{size} bytes" for path, size in sizes.items()}
    for done, (path, digest) in enumerate(zip(doubtful, parallel_map(_sha256, doubtful), strict=True), start=1):
        found[path] = digest or found[path]
        if progress:
            progress(done, len(doubtful))
    return found


def shared(one: Contents, other: Contents, known: Digests, by_name: bool = True) -> Shared:
    """What two splits both hold.

    Args:
        one, other: the splits.
        known: their pictures' digests; where a picture is not in there, names say whether two are the same.
        by_name: False where names mean nothing because the splits are of tasks without a common folder of pictures.
    """
    ids = one.asked.keys() & other.asked.keys()
    same = {name for name in ids if one.asked[name] == other.asked[name]}
    names = {name for name in one.pictures.keys() & other.pictures.keys() if _same(name, one, other, known, by_name)}
    pairs = list(_copies(one, other, known))
    return Shared(
        examples=tuple(sorted(same)),
        renamed=tuple(sorted(ids - same)),
        pictures=tuple(sorted(names)),
        copies=tuple(sorted(f"{name} = {twin}" for name, twin in pairs)),
        copied=tuple(sorted({name for name, _ in pairs})),
        copied_other=tuple(sorted({twin for _, twin in pairs})),
    )


def overlaps(card: TaskCard, contents: Sequence[Contents], known: Digests) -> list[Overlap]:
    """Every two splits of the task that share something, in the order of `contents`."""
    found = []
    for one, other in combinations(contents, 2):
        both = shared(one, other, known)
        if both:
            found.append(Overlap(one.split, other.split, both, _verdict(card, one.split, other.split, both)))
    return found


def _verdict(card: TaskCard, one: str, other: str, both: Shared) -> Verdict:
    if other in card.splits[one].overlaps or one in card.splits[other].overlaps:
        return "known"
    apart = card.train_split in (one, other) or {one, other} == {card.select_on, card.report_split}
    if apart and (both.examples or both.pictures):
        return "WRONG"
    return "copies" if apart and both.copies else "shared"


def _same(name: str, one: Contents, other: Contents, known: Digests, by_name: bool) -> bool:
    """Whether a name means one picture in both: one file, the same bytes, or nothing there that could be compared."""
    paths = one.pictures[name], other.pictures[name]
    if paths[0] == paths[1]:
        return True
    if all(path in known for path in paths):
        return known[paths[0]] == known[paths[1]]
    return by_name and paths[0].name == paths[1].name


def _copies(one: Contents, other: Contents, known: Digests) -> Iterable[tuple[str, str]]:
    """Pairs of an image of `one` and an image of another name and place in `other` that have the same bytes."""
    places: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for name, path in other.pictures.items():
        if _hashed(known.get(path)):
            places[known[path]].append((name, path))
    for name, path in one.pictures.items():
        for twin, place in places.get(known.get(path, ""), ()):
            if twin != name and place != path:
                yield name, twin


def _hashed(digest: str | None) -> bool:
    return digest is not None and not digest.endswith("bytes")


def _across(group: Sequence[Path], splits: Mapping[Path, set[int]]) -> bool:
    """Whether files of one size lie in different splits."""
    return len(group) > 1 and len(set().union(*(splits[path] for path in group))) > 1


def size_of(path: Path) -> int:
    """In bytes; -1 of a file that cannot be read."""
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
