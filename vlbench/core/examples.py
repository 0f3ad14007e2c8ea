"""The data of a task: references to images, queries without answers, examples with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeGuard, TypeVar, cast


@dataclass(frozen=True, slots=True)
class ImageRef:
    """The file of an image, never a decoded image. key: of its region features."""

    path: Path
    key: str


@dataclass(frozen=True, slots=True)
class Query:
    """The input of a model. It has no answer, so leaking one is a type error."""

    images: tuple[ImageRef, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Shot:
    """A question with its answer, shown before another question."""

    query: Query
    answer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of a generative model: a query, after the shots shown before it."""

    query: Query
    shots: tuple[Shot, ...] = ()

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """All its images, in their order."""
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
    """The reference of a text in a gallery: the key of the one image it belongs to.

    fold: images and texts are ranked among those of their own fold only; scores are averaged over the folds.
    """

    image: str
    fold: str = ""


class Answered(Protocol):
    """A reference whose answers are texts, from which a classifier over an answer vocabulary learns."""

    @property
    def consensus(self) -> str:
        """The one answer that stands for all; answers are counted by it. Empty where none is public."""

    def worths(self) -> Mapping[str, float]:
        """Answer -> its score in (0, 1]; empty where none is public."""


def is_answered(reference: object) -> TypeGuard[Answered]:
    """Whether a reference, which is a dataclass, is `Answered`; decided once per type, since splits are long."""
    kind: type = type(reference)
    return _has_answers(kind)


@cache
def _has_answers(kind: type) -> bool:
    names = {*dir(kind), *(field.name for field in fields(kind))} if is_dataclass(kind) else {*dir(kind)}
    return {"consensus", "worths"} <= names


Reference = TypeVar("Reference", covariant=True)


@dataclass(frozen=True, slots=True)
class Example(Generic[Reference]):
    """One question with its reference.

    group: the name of what makes examples dependent (an image, a statement): intervals are clustered by it. tags: the
    slices by which tables break down a metric.
    """

    id: str
    query: Query
    reference: Reference
    group: str
    tags: Mapping[str, str] = field(default_factory=dict)


Examples: TypeAlias = Sequence[Example[object]]
"""Examples of any task, whatever their references."""


def consensus_of(example: Example[object]) -> str:
    """The one answer that stands for all of an example's, or an empty text."""
    return example.reference.consensus if is_answered(example.reference) else ""


def worths_of(example: Example[object]) -> Mapping[str, float]:
    """Answer -> its score in (0, 1]; empty where the example has no answer."""
    return example.reference.worths() if is_answered(example.reference) else {}


def image_of(example: Example[object]) -> str:
    """The key of the image that a retrieval example's text belongs to; raises TypeError for any other example."""
    if not isinstance(example.reference, Caption):
        raise TypeError(f"example {example.id!r} belongs to no gallery")
    return example.reference.image


def captioned(examples: Examples) -> Sequence[Example[Caption]]:
    """The examples of a retrieval task under their own type; raises TypeError if the first one, which alone is checked
    since splits are long, is no example of retrieval.
    """
    for example in examples[:1]:
        image_of(example)
    return cast("Sequence[Example[Caption]]", examples)
