"""What a question of each kind is about, by chance: mostly looks of one attribute, which can be learned first."""

from __future__ import annotations

from random import Random

from vlbench.world.chance import below, pick, shuffled
from vlbench.world.programs import (
    DIRECTIONS,
    OPPOSITE,
    VALUES,
    Alike,
    Bigger,
    Choose,
    ChooseRelation,
    Count,
    CountColours,
    Every,
    Exist,
    Logic,
    More,
    Program,
    Property,
    Query,
    Things,
    Verify,
    VerifyRelation,
)
from vlbench.world.questions import Kind
from vlbench.world.scenes import COLOURS, SHAPES, SIZES
from vlbench.world.statements import ATTRIBUTES, Attribute, Look

_TWO_ATTRIBUTES = 0.3
_PLURAL = 0.4
_WEIGHTED: tuple[Attribute, ...] = ("colour",) * 4 + ("shape",) * 4 + ("size",)
_ATTRIBUTE: dict[Kind, Attribute] = {
    "colour": "colour",
    "shape": "shape",
    "size": "size",
    "colour_where": "colour",
    "shape_where": "shape",
}
_PLACES: tuple[Property, ...] = ("across", "down")


def draw_program(kind: Kind, rng: Random) -> Program:
    """A program of that kind; its arguments do not give its answer away."""
    match kind:
        case "colour" | "shape" | "size":
            return Query(_subject(rng, _ATTRIBUTE[kind]), _ATTRIBUTE[kind])
        case "colour_where" | "shape_where":
            return Query(_related(rng, _ATTRIBUTE[kind]), _ATTRIBUTE[kind])
        case "colour_of_all" | "shape_of_all":
            return Query(Things(Look(), plural=True), "colour" if kind == "colour_of_all" else "shape")
        case "place":
            return Query(Things(_look(rng)), "across")
        case "exist":
            return Exist(Things(_look(rng)))
        case "exist_where":
            return Exist(_related(rng, None))
        case "count":
            return Count(_look(rng, two=0.1) if rng.random() < 0.9 else Look())
        case "colours":
            return CountColours()
        case "every":
            attribute = pick(rng, _WEIGHTED)
            return Every(attribute, pick(rng, VALUES[attribute]))
        case "verify" | "verify_place" | "choose" | "choose_place":
            return _draw_attribute_question(kind, rng)
        case _:
            return _draw_of_two(kind, rng)


def _draw_attribute_question(kind: Kind, rng: Random) -> Program:
    if kind in ("verify_place", "choose_place"):
        place = pick(rng, _PLACES)
        things, values = Things(_look(rng)), shuffled(rng, VALUES[place])
        return Verify(things, place, values[0]) if kind == "verify_place" else Choose(things, place, _two(values))
    attribute = pick(rng, _WEIGHTED)
    things, values = Things(_look(rng, without=attribute)), shuffled(rng, VALUES[attribute])
    return Verify(things, attribute, values[0]) if kind == "verify" else Choose(things, attribute, _two(values))


def _draw_of_two(kind: Kind, rng: Random) -> Program:
    """A question about two things or two kinds of things, which differ in one attribute alone."""
    attribute: Attribute = "colour" if rng.random() < 0.5 else "shape"
    direction = pick(rng, DIRECTIONS)
    match kind:
        case "same" | "different":
            asked = pick(rng, [other for other in ATTRIBUTES if other != attribute])
            first, second = _different(rng, attribute)
            return Alike(Things(first), Things(second), asked, kind == "same")
        case "bigger":
            first, second = _different(rng, "shape")
            return Bigger(Things(first), Things(second))
    first, second = _different(rng, attribute)
    match kind:
        case "verify_relation":
            return VerifyRelation(Things(first), direction, Things(second))
        case "choose_relation":
            return ChooseRelation(Things(first), (direction, OPPOSITE[direction]), Things(second))
        case "more":
            return More(first, second)
        case "both":
            return Logic("and", first, second)
        case _:
            return Logic("or", first, second)


def _subject(rng: Random, without: Attribute) -> Things:
    """One thing, or several of one attribute or none: "the big circle", "the circles", "the shapes"."""
    if rng.random() >= _PLURAL:
        return Things(_look(rng, without))
    return Things(_look(rng, without, two=0) if rng.random() < 0.7 else Look(), plural=True)


def _related(rng: Random, without: Attribute | None) -> Things:
    """Things of one attribute or none, from an anchor of one."""
    look = Look() if without and rng.random() < 0.7 else _look(rng, without, two=0)
    return Things(look, direction=pick(rng, DIRECTIONS), anchor=_look(rng, two=0))


def _look(rng: Random, without: Attribute | None = None, two: float = _TWO_ATTRIBUTES) -> Look:
    """One attribute, or with that chance two, but not that one; size the least often."""
    order = dict.fromkeys(shuffled(rng, [other for other in _WEIGHTED if other != without]))
    said = list(order)[: 1 + (rng.random() < two)]
    return Look(
        pick(rng, SIZES) if "size" in said else None,
        pick(rng, COLOURS) if "colour" in said else None,
        pick(rng, SHAPES) if "shape" in said else None,
    )


def _different(rng: Random, attribute: Attribute) -> tuple[Look, Look]:
    """Two looks of that one attribute."""
    if attribute == "shape":
        shapes = shuffled(rng, SHAPES)
        return Look(shape=shapes[0]), Look(shape=shapes[1])
    colours = shuffled(rng, COLOURS)
    return Look(colour=colours[0]), Look(colour=colours[1])


def _two(values: list[str]) -> tuple[str, str]:
    return values[0], values[1]
