"""Ten simulated annotators: most give the true answer, some another spelling of it or another answer."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vlbench.world.language.phrases import NUMBERS
from vlbench.world.rng import pick, shuffled

ANNOTATORS = 10
_AGREEING = (10,) * 5 + (9,) * 7 + (8,) * 4 + (7,) * 2 + (6,) * 2
"""How many of the ten give the true answer in the common spelling; all ten do for a quarter of the questions."""

_VARIANTS = {
    "yes": ("Yes", "yes.", "YES", "maybe", "unsure"),
    "no": ("No", "no.", "NO", "maybe", "unsure"),
    "red": ("Red", "red.", "dark red", "pink", "orange"),
    "green": ("Green", "green.", "dark green", "teal", "olive"),
    "blue": ("Blue", "blue.", "light blue", "purple", "navy"),
    "yellow": ("Yellow", "yellow.", "gold", "orange", "cream"),
    "circle": ("Circle", "a circle", "round", "ball", "dot"),
    "square": ("Square", "a square", "box", "rectangle", "block"),
    "triangle": ("Triangle", "a triangle", "pyramid", "cone", "arrow"),
    "small": ("Small", "small.", "little", "tiny", "not big"),
    "big": ("Big", "big.", "large", "huge", "medium"),
    "left": ("Left", "left.", "on left", "left side", "west"),
    "right": ("Right", "right.", "on right", "right side", "east"),
} | {str(number): (NUMBERS[number], NUMBERS[number].title(), f"{number}.", "several", "many") for number in range(5)}


def ten_answers(truth: str, possible: Sequence[str], rng: Random) -> list[str]:
    """The answers of ten annotators in random order: at least six true ones, at most one other `possible` answer."""
    agreeing = pick(rng, _AGREEING)
    others = [pick(rng, [answer for answer in possible if answer != truth]), *_VARIANTS[truth]]
    return shuffled(rng, [truth] * agreeing + shuffled(rng, others)[: ANNOTATORS - agreeing])


def normalise_spelling(answer: str) -> str:
    """An answer of `ten_answers` in the spelling in which the official evaluation compares it."""
    words = [word for word in answer.lower().rstrip(".").split() if word != "a"]
    return " ".join(str(NUMBERS.index(word)) if word in NUMBERS else word for word in words)
