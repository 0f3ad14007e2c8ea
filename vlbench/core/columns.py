"""Examples column by column: what scoring, coverage, baselines and samples read, without making an example per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast, runtime_checkable

from vlbench.core.examples import Example

Reference = TypeVar("Reference", covariant=True)


@dataclass(frozen=True)
class Columns(Generic[Reference]):
    """The columns of n examples, all in their order.

    ids, groups, references: [n]. tags: tag -> its values [n], None where an example lacks it.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    references: Sequence[Reference]
    tags: Mapping[str, Sequence[str | None]]


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
