"""Examples column by column: what scoring, coverage, baselines and samples read, without making an example per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from vlbench.core.examples import Example, Examples, ImageRef, Query

Reference = TypeVar("Reference", covariant=True)
Value = TypeVar("Value", covariant=True)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Columns(Generic[Reference]):
    """The columns of n examples, all in their order.

    ids, groups, references: [n]. tags: tag -> its values [n], None where an example lacks it.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    references: Sequence[Reference]
    tags: Mapping[str, Sequence[str | None]]
    _derived: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    def derive(self, function: Callable[[Columns[Reference]], Value]) -> Value:
        """`function` of these columns, computed once: what several metrics share. function: a module's, no lambda."""
        if function not in self._derived:
            self._derived[function] = function(self)
        return cast("Value", self._derived[function])


@dataclass(frozen=True)
class Numbered:
    """N texts, many of them equal, as numbers. texts: the different ones, in the order of their first appearance.
    numbers: [N], the place of each in `texts`.
    """

    texts: Sequence[str]
    numbers: NDArray[np.int64]


def number_texts(texts: Iterable[str], count: int = -1) -> Numbered:
    """Number texts. count: how many they are; -1 where this is not known."""
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__
    numbers = np.fromiter(map(number.__getitem__, texts), np.int64, count)
    return Numbered(list(number), numbers)


class LazyColumn(Sequence[Value]):
    """A column that is read as a whole on first use, and kept.

    read: returns its values, `length` of them.
    """

    def __init__(self, length: int, read: Callable[[], Sequence[Value]]) -> None:
        self._length, self._read = length, read
        self._values: Sequence[Value] | None = None

    @property
    def is_read(self) -> bool:
        """Whether the values are in memory."""
        return self._values is not None

    @property
    def values(self) -> Sequence[Value]:
        """All values."""
        if self._values is None:
            self._values = self._read()
        return self._values

    @overload
    def __getitem__(self, row: int) -> Value: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[Value]: ...

    def __getitem__(self, row: int | slice) -> Value | Sequence[Value]:
        return self.values[row]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values)


def values_of(column: Sequence[Item]) -> Sequence[Item]:
    """The values of a column, whose rows are accessed faster than through a `LazyColumn`."""
    return column.values if isinstance(column, LazyColumn) else column


class Columnar(Sequence[Example[object]], ABC):
    """Examples that are kept as columns, and made when they are accessed."""

    @property
    @abstractmethod
    def columns(self) -> Columns[object]:
        """All columns; each one is read on first use, and the references are parsed once."""

    @property
    @abstractmethod
    def refs(self) -> Iterable[ImageRef]:
        """The images of all examples, each at least once, in the order of their first use."""

    @abstractmethod
    def take(self, rows: Sequence[int]) -> list[Example[object]]:
        """The examples of these rows, 0 <= row < len(self)."""

    @abstractmethod
    def queries(self, rows: Sequence[int]) -> list[Query]:
        """The queries of these rows, without parsing references."""


_BLOCK = 4096
"""Rows whose queries are made at once."""


def columns_of(examples: Sequence[Example[Reference]]) -> Columns[Reference]:
    """The columns of examples of any kind of sequence."""
    if isinstance(examples, Columnar):
        return cast("Columns[Reference]", examples.columns)
    return Columns(
        ids=[example.id for example in examples],
        groups=[example.group for example in examples],
        references=[example.reference for example in examples],
        tags=_TagsOf(examples),
    )


class _TagsOf(Mapping[str, Sequence[str | None]]):
    """The columns of the tags of examples; each one is made on first use, and kept."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._columns: dict[str, Sequence[str | None]] = {}

    @cached_property
    def _names(self) -> Mapping[str, None]:
        return dict.fromkeys(tag for example in self._examples for tag in example.tags)

    def __getitem__(self, tag: str) -> Sequence[str | None]:
        if tag not in self._columns:
            column = [example.tags.get(tag) for example in self._examples]
            if all(value is None for value in column):
                raise KeyError(tag)
            self._columns[tag] = column
        return self._columns[tag]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def take(examples: Examples, rows: Sequence[int]) -> list[Example[object]]:
    """The examples of these rows."""
    return examples.take(rows) if isinstance(examples, Columnar) else [examples[row] for row in rows]


def queries_at(examples: Examples, rows: Sequence[int]) -> list[Query]:
    """The queries of these rows; no reference is parsed."""
    return examples.queries(rows) if isinstance(examples, Columnar) else [examples[row].query for row in rows]


def ids_and_queries(examples: Examples, rows: Sequence[int]) -> tuple[tuple[str, ...], list[Query]]:
    """The ids and the queries of these rows; no reference is parsed."""
    if isinstance(examples, Columnar):
        ids = examples.columns.ids
        return tuple(ids[row] for row in rows), examples.queries(rows)
    block = [examples[row] for row in rows]
    return tuple(example.id for example in block), [example.query for example in block]


def queries_of(examples: Examples) -> Iterator[Query]:
    """All queries in order; no reference is parsed."""
    if not isinstance(examples, Columnar):
        yield from (example.query for example in examples)
        return
    for start in range(0, len(examples), _BLOCK):
        yield from examples.queries(range(start, min(start + _BLOCK, len(examples))))


def refs_of(examples: Examples) -> Iterable[ImageRef]:
    """The images of all examples, each at least once, in the order of their first use; no reference is parsed."""
    if isinstance(examples, Columnar):
        return examples.refs
    return (ref for example in examples for ref in example.query.images)


class LazyExamples(Columnar):
    """A sequence of examples that are made when they are accessed."""

    @property
    def ids(self) -> Sequence[str]:
        """All ids in order."""
        return values_of(self.columns.ids)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "columns"}  # which are read again

    @overload
    def __getitem__(self, row: int) -> Example[object]: ...

    @overload
    def __getitem__(self, row: slice) -> list[Example[object]]: ...

    def __getitem__(self, row: int | slice) -> Example[object] | list[Example[object]]:
        length = len(self)
        if isinstance(row, slice):
            return self.take(range(*row.indices(length)))
        if not -length <= row < length:
            raise IndexError(f"row {row} of {length} examples")
        return self.take([row % length])[0]

    def __iter__(self) -> Iterator[Example[object]]:
        for start in range(0, len(self), _BLOCK):
            yield from self.take(range(start, min(start + _BLOCK, len(self))))


class Chosen(LazyExamples):
    """Some rows of a sequence of examples, in the order of `rows`."""

    def __init__(self, examples: Examples, rows: Sequence[int]) -> None:
        self.examples, self.rows = examples, rows

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def columns(self) -> Columns[object]:
        columns = columns_of(self.examples)
        return Columns(
            ids=self._chosen(columns.ids),
            groups=self._chosen(columns.groups),
            references=self._chosen(columns.references),
            tags={tag: self._chosen(values) for tag, values in columns.tags.items()},
        )

    @property
    def refs(self) -> Iterable[ImageRef]:
        return (ref for query in self.queries(range(len(self))) for ref in query.images)

    def take(self, rows: Sequence[int]) -> list[Example[object]]:
        return take(self.examples, [self.rows[row] for row in rows])

    def queries(self, rows: Sequence[int]) -> list[Query]:
        return queries_at(self.examples, [self.rows[row] for row in rows])

    def _chosen(self, values: Sequence[Value]) -> LazyColumn[Value]:
        rows = self.rows  # not `self`, which holds the column: a cycle would keep all examples until it is collected
        return LazyColumn(len(rows), lambda: list(map(values_of(values).__getitem__, rows)))


def columnar(examples: Examples) -> Columnar:
    """The same examples with columns that are made once."""
    return examples if isinstance(examples, Columnar) else Chosen(examples, range(len(examples)))
