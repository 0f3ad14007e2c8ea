"""What a task is made of: pictures by reference, queries without answers, examples with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar, cast, runtime_checkable


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where a picture's bytes are, and the key of its region features; never a decoded picture."""

    path: Path
    key: str


@dataclass(frozen=True, slots=True)
class Query:
    """What a model may see. It has no answer, so leaking one is a type error."""

    images: tuple[ImageRef, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Shot:
    """A question with its answer, shown before another question."""

    query: Query
    answer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model that writes is asked, after shots that show how."""

    query: Query
    shots: tuple[Shot, ...] = ()

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """All its pictures, in their order."""
        return tuple(ref for query in (*(shot.query for shot in self.shots), self.query) for ref in query.images)


@dataclass(frozen=True, slots=True)
class Label:
    """The reference of a task whose examples carry one label out of a closed list."""

    value: str

    @property
    def consensus(self) -> str:
        return self.value

    def worths(self) -> Mapping[str, float]:
        return {self.value: 1.0}


@dataclass(frozen=True, slots=True)
class Caption:
    """The reference of a text in a gallery: the key of the one picture it belongs to.

    fold: pictures and texts are searched among those of their own fold only; figures are averaged over the folds.
    """

    image: str
    fold: str = ""


@runtime_checkable
class Answered(Protocol):
    """A reference whose answers are words: what a classifier over a vocabulary learns from."""

    @property
    def consensus(self) -> str:
        """The one answer that stands for all; answers are counted by it. Empty where none is public."""
        ...

    def worths(self) -> Mapping[str, float]:
        """Answer -> what giving it is worth, in (0, 1]; empty where none is public."""
        ...


Reference = TypeVar("Reference", covariant=True)


@dataclass(frozen=True, slots=True)
class Example(Generic[Reference]):
    """One question with its reference.

    `group` names what is dependent (an image, a statement): intervals are clustered by it.
    `tags` are the slices a table may be cut into.
    """

    id: str
    query: Query
    reference: Reference
    group: str
    tags: Mapping[str, str] = field(default_factory=dict)


Examples: TypeAlias = Sequence[Example[object]]
"""Examples of any task, whatever their references."""


def consensus_of(example: Example[object]) -> str:
    """The one answer that stands for all of an example's; empty where it has none."""
    return example.reference.consensus if isinstance(example.reference, Answered) else ""


def worths_of(example: Example[object]) -> Mapping[str, float]:
    """Answer -> what giving it is worth, in (0, 1]; empty where the example has no answer."""
    return example.reference.worths() if isinstance(example.reference, Answered) else {}


def image_of(example: Example[object]) -> str:
    """The key of the image that a retrieval example's text belongs to.

    Raises:
        TypeError: it is no example of retrieval.
    """
    if not isinstance(example.reference, Caption):
        raise TypeError(f"example {example.id!r} belongs to no gallery")
    return example.reference.image


def captioned(examples: Examples) -> Sequence[Example[Caption]]:
    """The examples of a retrieval task under their own type; only the first one is checked, since splits are long.

    Raises:
        TypeError: it is no example of retrieval.
    """
    for example in examples[:1]:
        image_of(example)
    return cast("Sequence[Example[Caption]]", examples)
