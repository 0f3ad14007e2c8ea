"""Statements about a pair of pictures as small programs, how to draw one, and the solver that is always right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias, get_args

from vlbench.world.rng import below, pick, shuffled
from vlbench.world.scenes.scene import COLOURS, SHAPES, SIZES, Colour, Direction, Scene, Shape, Size, Thing

Kind = Literal[
    "exists", "absent", "both", "either", "neither", "crosswise",
    "count", "total", "more", "relation", "every", "position",
]  # fmt: skip
Side = Literal["left", "right"]
Bound = Literal["exactly", "at least", "at most"]
Place = Literal["top row", "middle row", "bottom row", "centre"]

Attribute = Literal["size", "colour", "shape"]

KINDS: tuple[Kind, ...] = get_args(Kind)
SIDES: tuple[Side, ...] = get_args(Side)
BOUNDS: tuple[Bound, ...] = get_args(Bound)
PLACES: tuple[Place, ...] = get_args(Place)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)

_FIRST: tuple[Attribute, ...] = ("colour",) * 4 + ("shape",) * 2 + ("size",)


@dataclass(frozen=True, slots=True)
class Look:
    """What things look like; None leaves an attribute open, so `Look()` is any thing."""

    size: Size | None = None
    colour: Colour | None = None
    shape: Shape | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether the thing looks so."""
        return (
            (self.colour is None or self.colour == thing.colour)
            and (self.shape is None or self.shape == thing.shape)
            and (self.size is None or self.size == thing.size)
        )

    def among(self, scene: Scene) -> list[Thing]:
        """The things of a scene that look so."""
        return [thing for thing in scene.things if self.fits(thing)]


@dataclass(frozen=True, slots=True)
class Statement:
    """A kind and its arguments; which of them count is up to the kind, the others keep their defaults."""

    kind: Kind
    first: Look
    second: Look = Look()
    side: Side = "left"
    bound: Bound = "exactly"
    number: int = 0
    direction: Direction = "left"
    place: Place = "centre"


def evaluate(statement: Statement, left: Scene, right: Scene) -> bool:
    """Whether the statement is true of the pair."""
    here, there = (left, right) if statement.side == "left" else (right, left)
    return _RULES[statement.kind](statement, here, there)


Rule: TypeAlias = Callable[[Statement, Scene, Scene], bool]
"""Takes the statement, the picture on its `side`, and the other one."""


def _exists(s: Statement, here: Scene, there: Scene) -> bool:
    return any(map(s.first.fits, here.things))


def _absent(s: Statement, here: Scene, there: Scene) -> bool:
    return not any(map(s.first.fits, here.things))


def _both(s: Statement, here: Scene, there: Scene) -> bool:
    return _exists(s, here, there) and _exists(s, there, here)


def _either(s: Statement, here: Scene, there: Scene) -> bool:
    return _exists(s, here, there) or _exists(s, there, here)


def _neither(s: Statement, here: Scene, there: Scene) -> bool:
    return not _either(s, here, there)


def _crosswise(s: Statement, here: Scene, there: Scene) -> bool:
    return any(map(s.first.fits, here.things)) and any(map(s.second.fits, there.things))


def _count(s: Statement, here: Scene, there: Scene) -> bool:
    found = len(s.first.among(here))
    match s.bound:
        case "exactly":
            return found == s.number
        case "at least":
            return found >= s.number
        case "at most":
            return found <= s.number


def _total(s: Statement, here: Scene, there: Scene) -> bool:
    return len(s.first.among(here)) + len(s.first.among(there)) == s.number


def _more(s: Statement, here: Scene, there: Scene) -> bool:
    return len(s.first.among(here)) > len(s.first.among(there))


def _relation(s: Statement, here: Scene, there: Scene) -> bool:
    others = s.second.among(here)
    return any(thing.stands(s.direction, other) for thing in s.first.among(here) for other in others)


def _every(s: Statement, here: Scene, there: Scene) -> bool:
    """False where there is no such thing: "every circle is red" presupposes a circle."""
    found = s.first.among(here)
    return bool(found) and all(map(s.second.fits, found))


def _position(s: Statement, here: Scene, there: Scene) -> bool:
    return any(stands_in(s.place, thing) for thing in s.first.among(here))


def stands_in(place: Place, thing: Thing) -> bool:
    """Whether the thing is in that row of cells, or in the cell in the middle."""
    return thing.cell == (1, 1) if place == "centre" else thing.cell[0] == PLACES.index(place)


_RULES: dict[Kind, Rule] = {
    "exists": _exists,
    "absent": _absent,
    "both": _both,
    "either": _either,
    "neither": _neither,
    "crosswise": _crosswise,
    "count": _count,
    "total": _total,
    "more": _more,
    "relation": _relation,
    "every": _every,
    "position": _position,
}


def draw_statement(kind: Kind, rng: Random) -> Statement:
    """A statement of that kind with arguments by chance, mostly ones that are true about as often as false."""
    match kind:
        case "exists" | "absent":
            return Statement(kind, _look(rng, 1, 2), side=pick(rng, SIDES))
        case "both" | "either" | "neither":
            return Statement(kind, _look(rng, 1, 2))
        case "crosswise":
            return Statement(kind, _look(rng, 1, 2), _look(rng, 1, 1))
        case "count":
            return Statement(
                kind, _look(rng, 0, 1), side=pick(rng, SIDES), bound=pick(rng, BOUNDS), number=_few(rng, 5)
            )
        case "total":
            return Statement(kind, _look(rng, 0, 1), number=_few(rng, 10))
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


def _look(rng: Random, fewest: int, most: int) -> Look:
    """A look with that many attributes, the fewer the likelier: one attribute alone is what can be learned first."""
    return _look_of(rng, _attributes(rng)[: most if rng.random() < 0.3 else fewest])


def _subject_and_predicate(rng: Random) -> tuple[Look, Look]:
    """ "Every circle" and "red": one attribute each, never the same."""
    subject, predicate, _ = _attributes(rng)
    return _look_of(rng, [subject]), _look_of(rng, [predicate])


def _attributes(rng: Random) -> list[Attribute]:
    """All three in a random order: colour comes first most often, size least."""
    first = pick(rng, _FIRST)
    return [first, *shuffled(rng, [other for other in ATTRIBUTES if other != first])]


def _look_of(rng: Random, attributes: list[Attribute]) -> Look:
    return Look(
        pick(rng, SIZES) if "size" in attributes else None,
        pick(rng, COLOURS) if "colour" in attributes else None,
        pick(rng, SHAPES) if "shape" in attributes else None,
    )


def _few(rng: Random, most: int) -> int:
    return 2 + below(rng, most - 1)
