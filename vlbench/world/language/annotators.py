"""Ten simulated people who answer a question: most say the truth, some spell it otherwise or see something else."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vlbench.world.language.phrases import NUMBERS
from vlbench.world.rng import pick, shuffled

PEOPLE = 10
_AGREEING = (10,) * 5 + (9,) * 7 + (8,) * 4 + (7,) * 2 + (6,) * 2
"""How many of the ten give the true answer in the common spelling: all of them to a quarter of the questions."""

_OTHERWISE = {
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
    """What ten people type, in a random order; at least six the truth, at most one another `possible` answer."""
    agreeing = pick(rng, _AGREEING)
    others = [pick(rng, [answer for answer in possible if answer != truth]), *_OTHERWISE[truth]]
    return shuffled(rng, [truth] * agreeing + shuffled(rng, others)[: PEOPLE - agreeing])


def spelt_alike(answer: str) -> str:
    """The spelling in which the official evaluation compares an answer of `ten_answers`."""
    words = [word for word in answer.lower().rstrip(".").split() if word != "a"]
    return " ".join(str(NUMBERS.index(word)) if word in NUMBERS else word for word in words)
