"""Hypotheses about one image: entailed, contradicted, or neutral because their subject is not in the image.

"The red circle is big" is entailed if there are red circles and all are big, contradicted if there are and none is, and
neutral if there is no red circle. In all other cases the hypothesis is not paired with the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from vlbench.world.language.phrases import DIRECTION_WORDINGS, NUMBERS, name_look
from vlbench.world.language.statements import ATTRIBUTES, PLACES, Attribute, Look, Place, is_in_place, random_look
from vlbench.world.rng import below, pick, shuffled
from vlbench.world.scenes.scene import DIRECTIONS, Direction, Scene

HypothesisKind = Literal["colour", "shape", "size", "place", "relation", "count"]
EntailmentLabel = Literal["entailment", "neutral", "contradiction"]

ENTAILMENT_LABELS: tuple[EntailmentLabel, ...] = get_args(EntailmentLabel)

TEMPLATES: dict[HypothesisKind, tuple[str, ...]] = {
    "colour": ("the {one} is {trait}", "the {one} here is {trait}", "the {one} looks {trait}",
               "in this {image} the {one} is {trait}", "the colour of the {one} is {trait}"),
    "shape": ("the {one} is a {trait}", "the {one} here is a {trait}", "the {one} is just a {trait}",
              "in this {image} the {one} is a {trait}", "the {one} has the shape of a {trait}"),
    "size": ("the {one} is {trait}", "the {one} here is {trait}", "the {one} looks {trait}",
             "in this {image} the {one} is {trait}", "the size of the {one} is {trait}"),
    "place": ("the {one} is in the {place}", "the {one} lies in the {place}", "the {one} sits in the {place}",
              "in the {place} there is the {one}", "the {one} is placed in the {place}"),
    "relation": ("the {one} is {where} the {other}", "the {one} stands {where} the {other}",
                 "the {one} lies {where} the {other}", "in this {image} the {one} is {where} the {other}",
                 "{where} the {other} is the {one}"),
    "count": ("the number of {one}s is {number}", "exactly {number} of the objects are {one}s",
              "the {image} has {one}s, exactly {number}", "of the {one}s there are exactly {number}",
              "the {one}s here are exactly {number}"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A kind and its arguments; a kind uses some of the arguments, the others keep their defaults."""

    kind: HypothesisKind
    subject: Look
    trait: Look = Look()  # noqa: RUF009 (immutable, so safe to share)
    other: Look = Look()  # noqa: RUF009
    direction: Direction = "left"
    place: Place = "centre"
    number: int = 1


def label_hypothesis(hypothesis: Hypothesis, scene: Scene) -> EntailmentLabel | None:
    """The label of the hypothesis for a scene; None if it holds for some of its subjects but not for all."""
    subjects = hypothesis.subject.among(scene)
    others = hypothesis.other.among(scene) if hypothesis.kind == "relation" else subjects
    if not subjects or not others:
        return "neutral"
    match hypothesis.kind:
        case "count":
            truths = [len(subjects) == hypothesis.number]
        case "place":
            truths = [is_in_place(thing, hypothesis.place) for thing in subjects]
        case "relation":
            truths = [subject.stands(hypothesis.direction, other) for subject in subjects for other in others]
        case _:
            truths = [hypothesis.trait.fits(thing) for thing in subjects]
    if all(truths):
        return "entailment"
    return None if any(truths) else "contradiction"


def draw_hypothesis(kind: HypothesisKind, rng: Random) -> Hypothesis:
    """A random hypothesis of that kind; most of its things are named by a single attribute."""
    match kind:
        case "colour" | "shape" | "size":
            trait: Attribute = kind
            others = shuffled(rng, [attribute for attribute in ATTRIBUTES if attribute != trait])
            return Hypothesis(kind, random_look(rng, others[: _one_or_two(rng)]), trait=random_look(rng, [trait]))
        case "place":
            return Hypothesis(kind, _random_subject(rng), place=pick(rng, PLACES))
        case "relation":
            return Hypothesis(kind, _random_subject(rng), other=_random_subject(rng), direction=pick(rng, DIRECTIONS))
        case "count":
            return Hypothesis(kind, _random_subject(rng), number=1 + below(rng, 3))


def phrase_hypothesis(hypothesis: Hypothesis, rng: Random) -> str:
    """A sentence that means the hypothesis; `rng` selects the wording."""
    noun = pick(rng, ("object", "thing"))
    words = pick(rng, TEMPLATES[hypothesis.kind]).format(
        image=pick(rng, ("picture", "image", "photo")),
        one=name_look(hypothesis.subject, noun),
        other=name_look(hypothesis.other, noun),
        trait=hypothesis.trait.size or hypothesis.trait.colour or hypothesis.trait.shape,
        where=pick(rng, DIRECTION_WORDINGS[hypothesis.direction]),
        place=hypothesis.place,
        number=NUMBERS[hypothesis.number],
    )
    return words[0].upper() + words[1:] + "."


def _random_subject(rng: Random) -> Look:
    attributes: list[Attribute] = ["colour", "shape"]
    return random_look(rng, shuffled(rng, attributes)[: _one_or_two(rng)])


def _one_or_two(rng: Random) -> int:
    """The number of attributes, mostly one: a model learns single attributes first."""
    return 1 if rng.random() < 0.7 else 2
