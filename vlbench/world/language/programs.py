"""Questions about one picture as small functional programs, and the solver that is always right.

Source: the operations are those of GQA (Hudson and Manning 2019), and counting besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from vlbench.world.language.statements import Look
from vlbench.world.scenes.scene import COLOURS, SHAPES, SIZES, Direction, Scene, Thing

Property = Literal["size", "colour", "shape", "across", "down"]
Joint = Literal["and", "or"]

ANY = Look()
YES, NO = "yes", "no"
MOST = 4
"""The largest number that is an answer."""

VALUES: dict[Property, tuple[str, ...]] = {
    "size": SIZES,
    "colour": COLOURS,
    "shape": SHAPES,
    "across": ("left", "right"),
    "down": ("top", "bottom"),
}


@dataclass(frozen=True, slots=True)
class Things:
    """The things that look so and, where a direction is given, stand so from the only thing of the anchor's look."""

    look: Look
    plural: bool = False
    direction: Direction | None = None
    anchor: Look = ANY

    def among(self, scene: Scene) -> list[Thing] | None:
        """Those of a scene; None where there is no anchor, or more than one."""
        found = self.look.among(scene)
        if self.direction is None:
            return found
        anchors = self.anchor.among(scene)
        if len(anchors) != 1:
            return None
        return [thing for thing in found if thing.stands(self.direction, anchors[0])]

    def meant(self, scene: Scene) -> list[Thing] | None:
        """What "the circle" or "the circles" means: exactly one thing or at least two; None where it means nothing."""
        found = self.among(scene)
        return found if found and (len(found) > 1) == self.plural else None


@dataclass(frozen=True, slots=True)
class Exist:
    """Are there such things?"""

    things: Things


@dataclass(frozen=True, slots=True)
class Verify:
    """Have the things that value?"""

    things: Things
    property: Property
    value: str


@dataclass(frozen=True, slots=True)
class Query:
    """Which value have the things?"""

    things: Things
    property: Property


@dataclass(frozen=True, slots=True)
class Choose:
    """Which of two values have the things?"""

    things: Things
    property: Property
    options: tuple[str, str]


@dataclass(frozen=True, slots=True)
class VerifyRelation:
    """Does the first stand in that direction from the second?"""

    first: Things
    direction: Direction
    second: Things


@dataclass(frozen=True, slots=True)
class ChooseRelation:
    """In which of two opposite directions does the first stand from the second?"""

    first: Things
    options: tuple[Direction, Direction]
    second: Things


@dataclass(frozen=True, slots=True)
class Every:
    """Have all things that value?"""

    property: Property
    value: str


@dataclass(frozen=True, slots=True)
class Logic:
    """Are there such things, and (or) such others?"""

    joint: Joint
    first: Look
    second: Look


@dataclass(frozen=True, slots=True)
class Alike:
    """Have the first and the second the same value; or, not `same`, different values?"""

    first: Things
    second: Things
    property: Property
    same: bool


@dataclass(frozen=True, slots=True)
class Bigger:
    """Which of two things of different shapes is bigger?"""

    first: Things
    second: Things


@dataclass(frozen=True, slots=True)
class More:
    """Are there more of the first than of the second?"""

    first: Look
    second: Look


@dataclass(frozen=True, slots=True)
class Count:
    """How many are there?"""

    look: Look


@dataclass(frozen=True, slots=True)
class CountColours:
    """How many colours are there?"""


Program: TypeAlias = (
    Exist | Verify | Query | Choose | VerifyRelation | ChooseRelation | Every | Logic | Alike | Bigger | More | Count
    | CountColours
)  # fmt: skip

OPPOSITE: dict[Direction, Direction] = {"left": "right", "right": "left", "above": "below", "below": "above"}
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


def solve(program: Program, scene: Scene) -> str | None:
    """The one true answer; None where there is none: "the circle" means nothing, or something stands in the middle."""
    match program:
        case Exist(things):
            found = things.among(scene)
            return None if found is None else _said(bool(found))
        case Verify(things, attribute, value):
            seen = shared_value(things.meant(scene), attribute)
            return seen and _said(seen == value)
        case Query(things, attribute):
            return shared_value(things.meant(scene), attribute)
        case Choose(things, attribute, options):
            seen = shared_value(things.meant(scene), attribute)
            return seen if seen in options else None
        case Every(attribute, value):
            return _said(all(value_of(thing, attribute) == value for thing in scene.things))
        case Count(look):
            found_number = len(look.among(scene))
            return str(found_number) if found_number <= MOST else None
        case CountColours():
            return str(len({thing.colour for thing in scene.things}))
        case _:
            return _solve_two(program, scene)


def _solve_two(program: VerifyRelation | ChooseRelation | Logic | Alike | Bigger | More, scene: Scene) -> str | None:
    """The answer to a question about two things or two kinds of things."""
    match program:
        case Logic(joint, one, other):
            there = [any(map(look.fits, scene.things)) for look in (one, other)]
            return _said(all(there) if joint == "and" else any(there))
        case More(one, other):
            return _said(len(one.among(scene)) > len(other.among(scene)))
        case _:
            first, second = program.first.meant(scene), program.second.meant(scene)
            if not first or not second or first[0] is second[0]:
                return None
            return _compare(program, first[0], second[0])


def _compare(program: VerifyRelation | ChooseRelation | Alike | Bigger, first: Thing, second: Thing) -> str | None:
    match program:
        case VerifyRelation(_, direction, _):
            return _said(first.stands(direction, second))
        case ChooseRelation(_, options, _):
            return next((direction for direction in options if first.stands(direction, second)), None)
        case Alike(_, _, attribute, same):
            return _said((value_of(first, attribute) == value_of(second, attribute)) == same)
        case Bigger():
            if first.size == second.size or first.shape == second.shape:
                return None
            return (first if first.size == "big" else second).shape


def answers(program: Program) -> tuple[str, ...]:
    """All answers that a question can have."""
    match program:
        case Query(_, attribute):
            return VALUES[attribute]
        case Choose(_, _, options) | ChooseRelation(_, options, _):
            return options
        case Bigger(first, second):
            return str(first.look.shape), str(second.look.shape)
        case Count():
            return tuple(map(str, range(MOST + 1)))
        case CountColours():
            return "1", "2"
        case _:
            return YES, NO


def mentioned(program: Program) -> tuple[Things, ...]:
    """What a question speaks of, in order: none, one or two; things in a direction come before their anchor."""
    match program:
        case Exist(things) | Verify(things, _, _) | Query(things, _) | Choose(things, _, _):
            return (things, Things(things.anchor)) if things.direction else (things,)
        case Logic(_, one, other) | More(one, other):
            return Things(one), Things(other)
        case Count(look):
            return (Things(look, plural=True),)
        case Every():
            return (Things(ANY, plural=True),)
        case CountColours():
            return ()
        case _:
            return program.first, program.second


def definite_mentions(program: Program) -> tuple[Things, ...]:
    """Those that have to mean something if the question is to have an answer: "the circle", "the circles"."""
    match program:
        case Exist(things) | Verify(things, _, _) | Query(things, _) | Choose(things, _, _):
            if things.direction:
                return (Things(things.anchor),)
            return () if isinstance(program, Exist) else (things,)
        case VerifyRelation() | ChooseRelation() | Alike() | Bigger():
            return program.first, program.second
        case _:
            return ()


def value_of(thing: Thing, attribute: Property) -> str | None:
    """A thing's value; None in the middle row (column), which is neither top nor bottom (left nor right)."""
    match attribute:
        case "size":
            return thing.size
        case "colour":
            return thing.colour
        case "shape":
            return thing.shape
        case "across":
            return ("left", None, "right")[thing.cell[1]]
        case "down":
            return ("top", None, "bottom")[thing.cell[0]]


def shared_value(things: list[Thing] | None, attribute: Property) -> str | None:
    """The value that all of the things have; None where they differ or there are none."""
    values = {value_of(thing, attribute) for thing in things or ()}
    return values.pop() if len(values) == 1 else None


def _said(truth: bool) -> str:
    return YES if truth else NO
