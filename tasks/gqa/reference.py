"""The reference of a GQA question: its answer and what the metrics need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float]
"""x, y of the top left corner, width, height; as fractions of the image's width and height."""


@dataclass(frozen=True, slots=True)
class GqaAnswer:
    """The answer to a question and what the metrics need; the answer is empty if it is not public.

    answer: compared exactly. structural: one of five types; `query` is an open question, the others are binary.

    The remaining fields are set for balanced questions only, because the metrics use no others. detailed: one of about
    a hundred types. global_group: questions of a group ask for the same sort of answer. entailed: ids of other
    questions whose answers follow from this one's. valid, plausible: answers of the right sort, and answers that occur
    in the scene graphs; None without a file of choices. boxes: of the objects that the question, then the full answer,
    mentions; None without a scene graph.
    """

    answer: str
    is_balanced: bool
    structural: str = ""
    detailed: str = ""
    global_group: str | None = None
    entailed: tuple[str, ...] = ()
    valid: tuple[str, ...] | None = None
    plausible: tuple[str, ...] | None = None
    boxes: tuple[Box, ...] | None = None

    @property
    def consensus(self) -> str:
        return self.answer

    def worths(self) -> Mapping[str, float]:
        """The soft targets: 1 for the answer."""
        return {self.answer: 1.0} if self.answer else {}
