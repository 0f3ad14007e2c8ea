"""Hypotheses about one picture: entailed, contradicted, or neutral because what they take for granted is not there.

"The red circle is big" is entailed where there are red circles and all are big, contradicted where there are and none
is, and neutral where there is no red circle; of any other picture it is not said.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from vlbench.world.language.phrases import DIRECTIONS_SAID, NUMBERS
from vlbench.world.language.statements import ATTRIBUTES, DIRECTIONS, PLACES, Attribute, Look, Place, stands_in
from vlbench.world.rng import below, pick, shuffled
from vlbench.world.scenes.scene import COLOURS, SHAPES, SIZES, Direction, Scene

Kind = Literal["colour", "shape", "size", "place", "relation", "count"]
Label = Literal["entailment", "neutral", "contradiction"]

KINDS: tuple[Kind, ...] = get_args(Kind)
LABELS: tuple[Label, ...] = get_args(Label)

TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "colour": ("the {one} is {trait}", "the {one} here is {trait}", "the {one} looks {trait}",
               "in this {picture} the {one} is {trait}", "the colour of the {one} is {trait}"),
    "shape": ("the {one} is a {trait}", "the {one} here is a {trait}", "the {one} is just a {trait}",
              "in this {picture} the {one} is a {trait}", "the {one} has the shape of a {trait}"),
    "size": ("the {one} is {trait}", "the {one} here is {trait}", "the {one} looks {trait}",
             "in this {picture} the {one} is {trait}", "the size of the {one} is {trait}"),
    "place": ("the {one} is in the {place}", "the {one} lies in the {place}", "the {one} sits in the {place}",
              "in the {place} there is the {one}", "the {one} is placed in the {place}"),
    "relation": ("the {one} is {where} the {other}", "the {one} stands {where} the {other}",
                 "the {one} lies {where} the {other}", "in this {picture} the {one} is {where} the {other}",
                 "{where} the {other} is the {one}"),
    "count": ("the number of {one}s is {number}", "exactly {number} of the objects are {one}s",
              "the {picture} has {one}s, exactly {number}", "of the {one}s there are exactly {number}",
              "the {one}s here are exactly {number}"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A kind and its arguments; which of them count is up to the kind, the others keep their defaults."""

    kind: Kind
    subject: Look
    trait: Look = Look()  # noqa: RUF009 (frozen, so one for all is as good as one for each)
    other: Look = Look()  # noqa: RUF009
    direction: Direction = "left"
    place: Place = "centre"
    number: int = 1


def label(hypothesis: Hypothesis, scene: Scene) -> Label | None:
    """What the picture says to it; None where it says neither wholly yes nor wholly no."""
    subjects = hypothesis.subject.among(scene)
    others = hypothesis.other.among(scene) if hypothesis.kind == "relation" else subjects
    if not subjects or not others:
        return "neutral"
    match hypothesis.kind:
        case "count":
            truths = [len(subjects) == hypothesis.number]
        case "place":
            truths = [stands_in(hypothesis.place, thing) for thing in subjects]
        case "relation":
            truths = [one.stands(hypothesis.direction, other) for one in subjects for other in others]
        case _:
            truths = [hypothesis.trait.fits(thing) for thing in subjects]
    if all(truths):
        return "entailment"
    return None if any(truths) else "contradiction"


def draw_hypothesis(kind: Kind, rng: Random) -> Hypothesis:
    """A hypothesis of that kind about things that mostly one attribute names."""
    match kind:
        case "colour" | "shape" | "size":
            trait: Attribute = kind
            named = shuffled(rng, [name for name in ATTRIBUTES if name != trait])
            return Hypothesis(kind, _look(rng, named[: _few(rng)]), trait=_look(rng, [trait]))
        case "place":
            return Hypothesis(kind, _named(rng), place=pick(rng, PLACES))
        case "relation":
            return Hypothesis(kind, _named(rng), other=_named(rng), direction=pick(rng, DIRECTIONS))
        case "count":
            return Hypothesis(kind, _named(rng), number=1 + below(rng, 3))


def say(hypothesis: Hypothesis, rng: Random) -> str:
    """A sentence that means it, the wording drawn from `rng`."""
    noun = pick(rng, ("object", "thing"))
    words = pick(rng, TEMPLATES[hypothesis.kind]).format(
        picture=pick(rng, ("picture", "image", "photo")),
        one=_name(hypothesis.subject, noun),
        other=_name(hypothesis.other, noun),
        trait=hypothesis.trait.size or hypothesis.trait.colour or hypothesis.trait.shape,
        where=pick(rng, DIRECTIONS_SAID[hypothesis.direction]),
        place=hypothesis.place,
        number=NUMBERS[hypothesis.number],
    )
    return words[0].upper() + words[1:] + "."


def _named(rng: Random) -> Look:
    attributes: list[Attribute] = ["colour", "shape"]
    return _look(rng, shuffled(rng, attributes)[: _few(rng)])


def _few(rng: Random) -> int:
    """Mostly one: what a single attribute names can be learned first."""
    return 1 if rng.random() < 0.7 else 2


def _look(rng: Random, attributes: list[Attribute]) -> Look:
    return Look(
        pick(rng, SIZES) if "size" in attributes else None,
        pick(rng, COLOURS) if "colour" in attributes else None,
        pick(rng, SHAPES) if "shape" in attributes else None,
    )


def _name(look: Look, noun: str) -> str:
    return " ".join(word for word in (look.size, look.colour, look.shape or noun) if word)
