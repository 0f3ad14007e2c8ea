"""What a question of each kind is about: things of a scene, mostly named by one attribute, which is learned first."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vlbench.world.language.programs import (
    ANY,
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
    value_of,
)
from vlbench.world.language.questions import Kind
from vlbench.world.language.statements import ATTRIBUTES, Attribute, Look
from vlbench.world.rng import below, pick, shuffled
from vlbench.world.scenes.scene import Thing

_TWO_ATTRIBUTES = 0.3
_PLURAL = 0.4
_WEIGHTED: tuple[Attribute, ...] = ("colour",) * 4 + ("shape",) * 4 + ("size",)
_NAMING: tuple[Attribute, ...] = ("colour", "shape")
_PLACES: tuple[Property, ...] = ("across", "down")
_ATTRIBUTE: dict[Kind, Attribute] = {
    "colour": "colour", "shape": "shape", "size": "size", "colour_where": "colour", "shape_where": "shape",
    "colour_of_all": "colour", "shape_of_all": "shape",
}  # fmt: skip


def draw_program(kind: Kind, things: Sequence[Thing], rng: Random) -> Program | None:
    """A program of that kind about some of a scene's things, which are at least two, if the first try brings one.

    It need not have an answer.
    """
    one, other = shuffled(rng, things)[:2]
    match kind:
        case "colour" | "shape" | "size":
            return Query(_subject(rng, one, _ATTRIBUTE[kind]), _ATTRIBUTE[kind])
        case "colour_where" | "shape_where":
            return Query(_related(rng, one, other, _ATTRIBUTE[kind]), _ATTRIBUTE[kind])
        case "colour_of_all" | "shape_of_all":
            return Query(Things(ANY, plural=True), _ATTRIBUTE[kind])
        case "place":
            return Query(Things(_look(rng, one)), "across")
        case "exist":
            return Exist(Things(_look(rng, one)))
        case "exist_where":
            return Exist(_related(rng, one, other))
        case "count":
            return Count(_look(rng, one, two=0.1) if rng.random() < 0.9 else ANY)
        case "colours":
            return CountColours()
        case "every" | "verify" | "verify_place" | "choose" | "choose_place":
            return _about_one(kind, one, rng)
        case _:
            return _about_two(kind, one, other, rng)


def _about_one(kind: Kind, thing: Thing, rng: Random) -> Program:
    """A question that names values of a thing, or values that it might have."""
    place = kind in ("verify_place", "choose_place")
    attribute: Attribute = pick(rng, _WEIGHTED)
    asked: Property = pick(rng, _PLACES) if place else attribute
    things = Things(_look(rng, thing, without=None if place else attribute))
    values = shuffled(rng, VALUES[asked])
    match kind:
        case "every":
            return Every(asked, values[0])
        case "verify" | "verify_place":
            return Verify(things, asked, values[0])
        case _:
            own = value_of(thing, asked) or values[0]
            another = next(value for value in values if value != own)
            return Choose(things, asked, (own, another) if below(rng, 2) else (another, own))


def _about_two(kind: Kind, one: Thing, other: Thing, rng: Random) -> Program | None:
    """A question about two things, or two kinds of things, named by what tells them apart."""
    naming: Attribute = "shape" if kind == "bigger" else pick(rng, _NAMING)
    if value_of(one, naming) == value_of(other, naming):
        return None
    match kind:
        case "more" | "both" | "either":
            looks = _look_of(one, [naming]), _look_of(other, [naming])
            return More(*looks) if kind == "more" else Logic("and" if kind == "both" else "or", *looks)
        case "same" | "different":
            asked = pick(rng, [attribute for attribute in ATTRIBUTES if attribute != naming])
            first, second = _named_apart(rng, one, other, naming, asked)
            return Alike(first, second, asked, kind == "same")
        case "bigger":
            return Bigger(*_named_apart(rng, one, other, naming, "size"))
    first, second = _named_apart(rng, one, other, naming)
    direction = pick(rng, DIRECTIONS)
    if kind == "verify_relation":
        return VerifyRelation(first, direction, second)
    return ChooseRelation(first, (direction, OPPOSITE[direction]), second)


def _subject(rng: Random, thing: Thing, without: Attribute) -> Things:
    """One thing, or several of one attribute or none: "the big circle", "the circles", "the shapes"."""
    if rng.random() >= _PLURAL:
        return Things(_look(rng, thing, without))
    return Things(_look(rng, thing, without, two=0) if rng.random() < 0.7 else ANY, plural=True)


def _related(rng: Random, thing: Thing, anchor: Thing, asked: Attribute | None = None) -> Things:
    """Things of one attribute, or of none where one is asked for, in a direction from an anchor of one."""
    look = ANY if asked and rng.random() < 0.7 else _look(rng, thing, asked, two=0)
    return Things(look, direction=pick(rng, DIRECTIONS), anchor=_look(rng, anchor, two=0))


def _named_apart(
    rng: Random, one: Thing, other: Thing, naming: Attribute, asked: Attribute | None = None
) -> tuple[Things, Things]:
    """Both things by that attribute; by chance both also by the other one that is not asked for."""
    more = [attribute for attribute in ATTRIBUTES if attribute not in (naming, asked)]
    said = [naming, pick(rng, more)] if below(rng, 2) else [naming]
    return Things(_look_of(one, said)), Things(_look_of(other, said))


def _look(rng: Random, thing: Thing, without: Attribute | None = None, two: float = _TWO_ATTRIBUTES) -> Look:
    """One attribute of the thing, or with that chance two, but not `without`; size the least often."""
    open_ = [attribute for attribute in _WEIGHTED if attribute != without]
    said = [pick(rng, open_)]
    if rng.random() < two:
        said.append(pick(rng, [attribute for attribute in open_ if attribute != said[0]]))
    return _look_of(thing, said)


def _look_of(thing: Thing, attributes: Sequence[Attribute]) -> Look:
    return Look(
        thing.size if "size" in attributes else None,
        thing.colour if "colour" in attributes else None,
        thing.shape if "shape" in attributes else None,
    )
