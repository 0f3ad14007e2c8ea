"""A task on disk: its card, the location of its data, and the adapter function that reads a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from vlbench.core.cards import SplitCard, TaskCard
from vlbench.core.errors import DataError, first_five, unknown
from vlbench.core.examples import Example, Examples
from vlbench.core.paths import visible
from vlbench.core.results import Metric
from vlbench.core.user_code import same_folder


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split: `path` requires that a file exists, `place` only returns its location.

    root: the folder of the task's data. card: the split's paths below it. siblings: folders searched after the root,
    which may hold the images of several tasks.
    """

    split: str
    root: Path
    card: SplitCard
    siblings: tuple[Path, ...] = ()

    def place(self, name: str) -> Path:
        """The first candidate path that exists (checked up to a `{field}` in it), else the first candidate."""
        candidates = self.card.files[name]
        folders = (self.root, *self.siblings)
        existing = (
            folder / text for folder in folders for text in candidates if (folder / text.split("{", 1)[0]).exists()
        )
        return next(existing, self.root / candidates[0])

    def path(self, name: str) -> Path:
        """The file called `name`; raises DataError with the candidate paths if it does not exist."""
        path = self.place(name)
        if not path.exists():
            places = " or ".join(self.card.files[name])
            where = f"split {self.split!r} needs {places} below {self.root}, which is not there"
            raise DataError(f"{where}: put it there or give another --data-root")
        return path


Adapter = Callable[[SplitFiles], Iterator[Example[object]]]
Reader = Callable[[Adapter, SplitFiles], Examples]
"""Turns the examples that an adapter yields into a sequence."""


@runtime_checkable
class Indexed(Protocol):
    """A sequence of examples that returns their ids without creating the examples."""

    @property
    def ids(self) -> Sequence[str]: ...


def ids_of(examples: Examples) -> Sequence[str]:
    """The ids of the examples, in order."""
    return examples.ids if isinstance(examples, Indexed) else [example.id for example in examples]


def _read_all(adapter: Adapter, files: SplitFiles) -> Examples:
    return list(adapter(files))


@dataclass(frozen=True)
class Task:
    """A task with its data: the card, the root of the data, the adapter's function and the metrics.

    counts: split -> expected number of examples, where the data itself states it (the synthetic world); otherwise the
    card's counts are expected. allow_partial: a different count adds a note to `notes` instead of an error. siblings:
    the card's, as folders below the data root. reader: keeps the examples in memory, or reads them from an index.
    """

    card: TaskCard
    root: Path
    source: Literal["world", "real"]
    adapter: Adapter
    metrics: Mapping[str, Metric]
    counts: Mapping[str, int] = field(default_factory=dict)
    allow_partial: bool = False
    siblings: tuple[Path, ...] = ()
    notes: list[str] = field(default_factory=list)
    reader: Reader = _read_all

    def files(self, split: str) -> SplitFiles:
        """The files of a split; raises VlbenchError with a near miss if there is none."""
        if split not in self.card.splits:
            raise unknown(f"split of {self.card.name}", split, self.card.splits)
        return SplitFiles(split, self.root, self.card.splits[split], self.siblings)

    def features(self) -> list[Path]:
        """The card's region feature files that exist, below the root and below the siblings."""
        folders = (self.root, *self.siblings)
        found = (path for folder in folders for pattern in self.card.features for path in visible(folder, pattern))
        return sorted(set(found))

    def load(self, split: str) -> Examples:
        """The examples of a split, in the order of its files.

        Raises:
            DataError: it is empty, has duplicate ids, or another number of examples than expected.
        """
        with same_folder():
            examples = self.reader(self.adapter, self.files(split))
        if not len(examples):
            raise DataError(f"split {split!r} of {self.card.name} below {self.root} is empty: expected examples")
        if duplicates := [name for name, times in Counter(ids_of(examples)).items() if times > 1]:
            raise DataError(f"split {split!r} of {self.card.name} holds ids twice: {first_five(duplicates)}")
        self._check_count(split, len(examples))
        return examples

    def _check_count(self, split: str, count: int) -> None:
        expected = self.counts.get(split, self.card.splits[split].count if self.source == "real" else None)
        if expected is None or count == expected:
            return
        difference = f"split {split!r} of {self.card.name} holds {count:,} examples where {expected:,} are expected"
        if not self.allow_partial:
            raise DataError(f"{difference}: restore the full file, or accept it with --allow-partial")
        if difference not in self.notes:
            self.notes.append(difference)

    def metric(self, name: str) -> Metric:
        """The metric of that name; raises VlbenchError with a near miss if there is none."""
        if name not in self.metrics:
            raise unknown(f"metric of {self.card.name}", name, self.metrics)
        return self.metrics[name]
