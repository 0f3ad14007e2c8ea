"""Statements about a pair of images as small programs: random generation, and an exact solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from vlbench.world.rng import below, pick, shuffled
from vlbench.world.scenes.scene import COLOURS, DIRECTIONS, SHAPES, SIZES, Colour, Direction, Scene, Shape, Size, Thing

StatementKind = Literal[
    "exists", "absent", "both", "either", "neither", "crosswise",
    "count", "total", "more", "relation", "every", "position",
]  # fmt: skip
Side = Literal["left", "right"]
Bound = Literal["exactly", "at least", "at most"]
Place = Literal["top row", "middle row", "bottom row", "centre"]

Attribute = Literal["size", "colour", "shape"]

STATEMENT_KINDS: tuple[StatementKind, ...] = get_args(StatementKind)
SIDES: tuple[Side, ...] = get_args(Side)
BOUNDS: tuple[Bound, ...] = get_args(Bound)
PLACES: tuple[Place, ...] = get_args(Place)
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)

_FIRST: tuple[Attribute, ...] = ("colour",) * 4 + ("shape",) * 2 + ("size",)


@dataclass(frozen=True, slots=True)
class Look:
    """Attributes that describe things; None stands for any value, so `Look()` describes all things."""

    size: Size | None = None
    colour: Colour | None = None
    shape: Shape | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether the thing has these attributes."""
        return (
            (self.colour is None or self.colour == thing.colour)
            and (self.shape is None or self.shape == thing.shape)
            and (self.size is None or self.size == thing.size)
        )

    def among(self, scene: Scene) -> list[Thing]:
        """The things of a scene that have these attributes."""
        return [thing for thing in scene.things if self.fits(thing)]


@dataclass(frozen=True, slots=True)
class Statement:
    """A kind and its arguments; a kind uses some of the arguments, the others keep their defaults."""

    kind: StatementKind
    first: Look
    second: Look = Look()
    side: Side = "left"
    bound: Bound = "exactly"
    number: int = 0
    direction: Direction = "left"
    place: Place = "centre"


def evaluate(statement: Statement, left: Scene, right: Scene) -> bool:
    """Whether the statement is true of the pair of scenes."""
    here, there = (left, right) if statement.side == "left" else (right, left)
    things, others = statement.first.among(here), statement.first.among(there)
    match statement.kind:
        case "exists":
            return bool(things)
        case "absent":
            return not things
        case "both":
            return bool(things and others)
        case "either":
            return bool(things or others)
        case "neither":
            return not (things or others)
        case "crosswise":
            return bool(things and statement.second.among(there))
        case "count":
            difference = len(things) - statement.number
            return {"exactly": difference == 0, "at least": difference >= 0, "at most": difference <= 0}[
                statement.bound
            ]
        case "total":
            return len(things) + len(others) == statement.number
        case "more":
            return len(things) > len(others)
        case "relation":
            anchors = statement.second.among(here)
            return any(thing.stands(statement.direction, anchor) for thing in things for anchor in anchors)
        case "every":  # false without such a thing: "every circle is red" presupposes a circle
            return bool(things) and all(map(statement.second.fits, things))
        case "position":
            return any(is_in_place(thing, statement.place) for thing in things)


def is_in_place(thing: Thing, place: Place) -> bool:
    """Whether the thing is in that row of cells, or in the central cell."""
    return thing.cell == (1, 1) if place == "centre" else thing.cell[0] == PLACES.index(place)


def draw_statement(kind: StatementKind, rng: Random) -> Statement:
    """A statement of that kind with random arguments, chosen so that most are true about as often as false."""
    match kind:
        case "exists" | "absent":
            return Statement(kind, _look(rng, 1, 2), side=pick(rng, SIDES))
        case "both" | "either" | "neither":
            return Statement(kind, _look(rng, 1, 2))
        case "crosswise":
            return Statement(kind, _look(rng, 1, 2), _look(rng, 1, 1))
        case "count":
            return Statement(
                kind, _look(rng, 0, 1), side=pick(rng, SIDES), bound=pick(rng, BOUNDS), number=_number(rng, 5)
            )
        case "total":
            return Statement(kind, _look(rng, 0, 1), number=_number(rng, 10))
        case "more":
            return Statement(kind, _look(rng, 0, 1), side=pick(rng, SIDES))
        case "relation":
            return Statement(
                kind, _look(rng, 1, 1), _look(rng, 1, 2), side=pick(rng, SIDES), direction=pick(rng, DIRECTIONS)
            )
        case "every":
            first, second = _subject_and_predicate(rng)
            return Statement(kind, first, second, side=pick(rng, SIDES))
        case "position":
            return Statement(kind, _look(rng, 1, 2), side=pick(rng, SIDES), place=pick(rng, PLACES))


def _look(rng: Random, fewer: int, more: int) -> Look:
    """A random look with one of two numbers of attributes, `more` with probability 0.3."""
    return random_look(rng, _attributes(rng)[: more if rng.random() < 0.3 else fewer])


def _subject_and_predicate(rng: Random) -> tuple[Look, Look]:
    """ "Every circle" and "red": one attribute each, always two different ones."""
    subject, predicate, _ = _attributes(rng)
    return random_look(rng, [subject]), random_look(rng, [predicate])


def _attributes(rng: Random) -> list[Attribute]:
    """All three attributes in random order: colour is first most often, size least often."""
    first = pick(rng, _FIRST)
    return [first, *shuffled(rng, [other for other in ATTRIBUTES if other != first])]


def random_look(rng: Random, attributes: Sequence[Attribute]) -> Look:
    """A look with random values for these attributes."""
    return Look(
        pick(rng, SIZES) if "size" in attributes else None,
        pick(rng, COLOURS) if "colour" in attributes else None,
        pick(rng, SHAPES) if "shape" in attributes else None,
    )


def _number(rng: Random, most: int) -> int:
    """A number from 2 to `most`."""
    return 2 + below(rng, most - 1)
