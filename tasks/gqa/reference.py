"""What a question of GQA carries besides itself, and how its record is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float]
"""x, y of the top left corner, width, height; as shares of the picture's width and height."""


@dataclass(frozen=True, slots=True)
class GqaAnswer:
    """The answer and what the measures need to judge another one; empty where the organisers keep it.

    Only balanced questions are measured, so the fields from `detailed` on are those of balanced questions only.

    answer: as it must be given, letter for letter. structural: one of five kinds; `query` is an open question, the
    others are binary. detailed: one of about a hundred kinds. global_group: questions of a group ask for answers of one
    sort. entailed: ids of other questions whose answers follow from this one's. valid, plausible: answers that suit the
    question, and that occur in the world; None without a file of choices. boxes: of the objects that the question, then
    the full answer, speaks of; None without a scene graph.
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
        """The answer."""
        return self.answer

    def worths(self) -> Mapping[str, float]:
        """The answer is worth 1, any other nothing."""
        return {self.answer: 1.0} if self.answer else {}
