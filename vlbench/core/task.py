"""A task on disk: its card, where its data lies, and the one function that reads a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from vlbench.core.cards import SplitCard, TaskCard
from vlbench.core.errors import DataError, first_five, unknown
from vlbench.core.examples import Example
from vlbench.core.results import Metric


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split. `path` insists that a file exists; `place` only says where it belongs.

    siblings: folders searched after the root, that may hold the images of several tasks.
    """

    split: str
    root: Path
    card: SplitCard
    siblings: tuple[Path, ...] = ()

    def place(self, name: str) -> Path:
        """The first candidate that exists (a `{field}` in it cuts the look-up short), else the first one."""
        candidates = self.card.files[name]
        folders = (self.root, *self.siblings)
        found = (
            folder / text for folder in folders for text in candidates if (folder / text.split("{", 1)[0]).exists()
        )
        return next(found, self.root / candidates[0])

    def path(self, name: str) -> Path:
        """The file called `name`.

        Raises:
            DataError: it is not there, naming the places looked at.
        """
        found = self.place(name)
        if not found.exists():
            places = " or ".join(self.card.files[name])
            raise DataError(
                f"split {self.split!r} needs {places} below {self.root}, which is not there: "
                f"put it there or give another --data-root"
            )
        return found


Adapter = Callable[[SplitFiles], Iterator[Example[Any]]]
Reader = Callable[[Adapter, SplitFiles], Sequence[Example[Any]]]
"""How what an adapter yields becomes a sequence."""


@runtime_checkable
class Indexed(Protocol):
    """A sequence of examples that knows their ids without making the examples."""

    @property
    def ids(self) -> Sequence[str]: ...


def ids_of(examples: Sequence[Example[Any]]) -> Sequence[str]:
    """The ids in order."""
    return examples.ids if isinstance(examples, Indexed) else [example.id for example in examples]


def _read_all(adapter: Adapter, files: SplitFiles) -> Sequence[Example[Any]]:
    return list(adapter(files))


@dataclass(frozen=True)
class Task:
    """A card, a root and the adapter's function.

    counts: split -> expected number of examples, where the data itself states it (the built-in world);
    otherwise the card's counts hold. allow_partial turns a differing count into a note in `notes`. siblings: the
    card's, as folders below the data root. reader: holds the examples, or reads them from an index.
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
        """The files of a split; an unknown split is an error that names the near miss."""
        if split not in self.card.splits:
            raise unknown(f"split of {self.card.name}", split, self.card.splits)
        return SplitFiles(split, self.root, self.card.splits[split], self.siblings)

    def features(self) -> list[Path]:
        """The card's tables of region features that are there, below the root and below the siblings."""
        folders = (self.root, *self.siblings)
        return sorted({path for folder in folders for pattern in self.card.features for path in folder.glob(pattern)})

    def load(self, split: str) -> Sequence[Example[Any]]:
        """The examples of a split, in the order of its files.

        Raises:
            DataError: nothing in it, an id twice, or another number of examples than the card says.
        """
        examples = self.reader(self.adapter, self.files(split))
        if not len(examples):
            raise DataError(f"split {split!r} of {self.card.name} below {self.root} is empty: expected examples")
        self._check_ids(split, examples)
        self._check_count(split, len(examples))
        return examples

    def _check_ids(self, split: str, examples: Sequence[Example[Any]]) -> None:
        twice = [name for name, times in Counter(ids_of(examples)).items() if times > 1]
        if twice:
            raise DataError(f"split {split!r} of {self.card.name} holds ids twice: {first_five(twice)}")

    def _check_count(self, split: str, found: int) -> None:
        expected = self.counts.get(split, self.card.splits[split].count if self.source == "real" else None)
        if expected is None or found == expected:
            return
        difference = f"split {split!r} of {self.card.name} holds {found:,} examples where {expected:,} are expected"
        if not self.allow_partial:
            raise DataError(f"{difference}: restore the full file, or accept it with --allow-partial")
        if difference not in self.notes:
            self.notes.append(difference)

    def metric(self, name: str) -> Metric:
        """The metric of that name; an unknown one is an error that names the near miss."""
        if name not in self.metrics:
            raise unknown(f"metric of {self.card.name}", name, self.metrics)
        return self.metrics[name]
