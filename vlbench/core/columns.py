"""Examples column by column: what scoring, coverage, baselines and samples read, without making an example per row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Protocol, TypeVar, cast, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlbench.core.examples import Example

Reference = TypeVar("Reference", covariant=True)
Value = TypeVar("Value")


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

    def take(self, rows: Sequence[int]) -> Columns[Reference]:
        """The columns of some rows, in the order of `rows`."""
        return Columns(
            ids=[self.ids[row] for row in rows],
            groups=[self.groups[row] for row in rows],
            references=[self.references[row] for row in rows],
            tags={tag: [values[row] for row in rows] for tag, values in self.tags.items()},
        )


@runtime_checkable
class Columnar(Protocol):
    """Examples that are kept as columns."""

    @property
    def columns(self) -> Columns[object]:
        """All columns; the references are parsed once, on first use."""


def columns_of(examples: Sequence[Example[Reference]]) -> Columns[Reference]:
    """The columns of examples of any kind of sequence."""
    if isinstance(examples, Columnar):
        return cast("Columns[Reference]", examples.columns)
    rows = list(examples)
    names = dict.fromkeys(tag for row in rows for tag in row.tags)
    return Columns(
        ids=[row.id for row in rows],
        groups=[row.group for row in rows],
        references=[row.reference for row in rows],
        tags={tag: [row.tags.get(tag) for row in rows] for tag in names},
    )


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


class Rows(Sequence[Example[Reference]]):
    """Some rows of examples, whose columns are made once. rows: in their order; None for all."""

    def __init__(self, examples: Sequence[Example[Reference]], rows: Sequence[int] | None = None) -> None:
        self._examples, self._rows = examples, rows

    @cached_property
    def columns(self) -> Columns[Reference]:
        columns = columns_of(self._examples)
        return columns if self._rows is None else columns.take(self._rows)

    @property
    def ids(self) -> Sequence[str]:
        return self.columns.ids

    def __len__(self) -> int:
        return len(self._examples if self._rows is None else self._rows)

    @overload
    def __getitem__(self, row: int) -> Example[Reference]: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[Example[Reference]]: ...

    def __getitem__(self, row: int | slice) -> Example[Reference] | Sequence[Example[Reference]]:
        if self._rows is None:
            return self._examples[row]
        if isinstance(row, slice):
            return [self._examples[chosen] for chosen in self._rows[row]]
        return self._examples[self._rows[row]]

    def __iter__(self) -> Iterator[Example[Reference]]:
        return iter(self._examples) if self._rows is None else map(self._examples.__getitem__, self._rows)
