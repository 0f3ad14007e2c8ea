"""Random question programs about the things of a scene; most things are named by a single attribute."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vlbench.world.language import programs
from vlbench.world.language.programs import ANY, OPPOSITE, VALUES, Program, Property, Things, value_of
from vlbench.world.language.questions import QuestionKind
from vlbench.world.language.statements import ATTRIBUTES, Attribute, Look
from vlbench.world.rng import below, pick, shuffled
from vlbench.world.scenes.scene import DIRECTIONS, Thing

_TWO_ATTRIBUTES = 0.3
_PLURAL = 0.4
_WEIGHTED: tuple[Attribute, ...] = ("colour",) * 4 + ("shape",) * 4 + ("size",)
_NAMING: tuple[Attribute, ...] = ("colour", "shape")
_PLACES: tuple[Property, ...] = ("across", "down")
_ATTRIBUTE: dict[QuestionKind, Attribute] = {
    "colour": "colour", "shape": "shape", "size": "size", "colour_where": "colour", "shape_where": "shape",
    "colour_of_all": "colour", "shape_of_all": "shape",
}  # fmt: skip


def draw_program(kind: QuestionKind, things: Sequence[Thing], rng: Random) -> Program | None:
    """A random program of that kind about one or two of a scene's things; None if the attempt fails.

    The program may have no answer. `things` has at least two elements.
    """
    first, second = shuffled(rng, things)[:2]
    match kind:
        case "colour" | "shape" | "size":
            return programs.QueryValue(_subject(rng, first, _ATTRIBUTE[kind]), _ATTRIBUTE[kind])
        case "colour_where" | "shape_where":
            return programs.QueryValue(_related(rng, first, second, _ATTRIBUTE[kind]), _ATTRIBUTE[kind])
        case "colour_of_all" | "shape_of_all":
            return programs.QueryValue(Things(ANY, plural=True), _ATTRIBUTE[kind])
        case "place":
            return programs.QueryValue(Things(_partial_look(rng, first)), "across")
        case "exist":
            return programs.Exist(Things(_partial_look(rng, first)))
        case "exist_where":
            return programs.Exist(_related(rng, first, second))
        case "count":
            return programs.Count(_partial_look(rng, first, two=0.1) if rng.random() < 0.9 else ANY)
        case "colours":
            return programs.CountColours()
        case "every" | "verify" | "verify_place" | "choose" | "choose_place":
            return _about_one(kind, first, rng)
        case _:
            return _about_two(kind, first, second, rng)


def _about_one(kind: QuestionKind, thing: Thing, rng: Random) -> Program:
    """A question that offers a value, or two values, for a property of a thing."""
    place = kind in ("verify_place", "choose_place")
    attribute: Attribute = pick(rng, _WEIGHTED)
    asked: Property = pick(rng, _PLACES) if place else attribute
    things = Things(_partial_look(rng, thing, without=None if place else attribute))
    values = shuffled(rng, VALUES[asked])
    match kind:
        case "every":
            return programs.Every(asked, values[0])
        case "verify" | "verify_place":
            return programs.Verify(things, asked, values[0])
        case _:
            own = value_of(thing, asked) or values[0]
            another = next(value for value in values if value != own)
            return programs.Choose(things, asked, (own, another) if below(rng, 2) else (another, own))


def _about_two(kind: QuestionKind, first: Thing, second: Thing, rng: Random) -> Program | None:
    """A question about two things, or two looks, named by an attribute in which they differ."""
    naming: Attribute = "shape" if kind == "bigger" else pick(rng, _NAMING)
    if value_of(first, naming) == value_of(second, naming):
        return None
    match kind:
        case "more" | "both" | "either":
            looks = _look_of(first, [naming]), _look_of(second, [naming])
            if kind == "more":
                return programs.More(*looks)
            return programs.Logic("and" if kind == "both" else "or", *looks)
        case "same" | "different":
            asked = pick(rng, [attribute for attribute in ATTRIBUTES if attribute != naming])
            return programs.Alike(*_named_apart(rng, first, second, naming, asked), asked, kind == "same")
        case "bigger":
            return programs.Bigger(*_named_apart(rng, first, second, naming, "size"))
    things, other_things = _named_apart(rng, first, second, naming)
    direction = pick(rng, DIRECTIONS)
    if kind == "verify_relation":
        return programs.VerifyRelation(things, direction, other_things)
    return programs.ChooseRelation(things, (direction, OPPOSITE[direction]), other_things)


def _subject(rng: Random, thing: Thing, without: Attribute) -> Things:
    """One thing, or several with at most one attribute: "the big circle", "the circles", "the shapes"."""
    if rng.random() >= _PLURAL:
        return Things(_partial_look(rng, thing, without))
    return Things(_partial_look(rng, thing, without, two=0) if rng.random() < 0.7 else ANY, plural=True)


def _related(rng: Random, thing: Thing, anchor: Thing, asked: Attribute | None = None) -> Things:
    """Things with at most one attribute, which is not `asked`, in a direction from an anchor with one attribute."""
    look = ANY if asked and rng.random() < 0.7 else _partial_look(rng, thing, asked, two=0)
    return Things(look, direction=pick(rng, DIRECTIONS), anchor=_partial_look(rng, anchor, two=0))


def _named_apart(
    rng: Random, first: Thing, second: Thing, naming: Attribute, asked: Attribute | None = None
) -> tuple[Things, Things]:
    """Both things named by `naming`, and with probability 1 / 2 by a second attribute, but never by `asked`."""
    more = [attribute for attribute in ATTRIBUTES if attribute not in (naming, asked)]
    named = [naming, pick(rng, more)] if below(rng, 2) else [naming]
    return Things(_look_of(first, named)), Things(_look_of(second, named))


def _partial_look(rng: Random, thing: Thing, without: Attribute | None = None, two: float = _TWO_ATTRIBUTES) -> Look:
    """One attribute of the thing, or with probability `two` two, but not `without`; size least often."""
    allowed = [attribute for attribute in _WEIGHTED if attribute != without]
    named = [pick(rng, allowed)]
    if rng.random() < two:
        named.append(pick(rng, [attribute for attribute in allowed if attribute != named[0]]))
    return _look_of(thing, named)


def _look_of(thing: Thing, attributes: Sequence[Attribute]) -> Look:
    """The look with the thing's values for these attributes."""
    return Look(
        thing.size if "size" in attributes else None,
        thing.colour if "colour" in attributes else None,
        thing.shape if "shape" in attributes else None,
    )
