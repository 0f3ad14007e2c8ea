"""Questions about one image as small functional programs, and an exact solver.

Source: the operations are those of GQA (Hudson and Manning 2019), plus counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vlbench.world.language.statements import Look
from vlbench.world.scenes.scene import COLOURS, SHAPES, SIZES, Direction, Scene, Thing

Property = Literal["size", "colour", "shape", "across", "down"]
Joint = Literal["and", "or"]

ANY = Look()
YES, NO = "yes", "no"
MAX_COUNT = 4
"""The largest number that can be an answer."""

VALUES: dict[Property, tuple[str, ...]] = {
    "size": SIZES,
    "colour": COLOURS,
    "shape": SHAPES,
    "across": ("left", "right"),
    "down": ("top", "bottom"),
}


@dataclass(frozen=True, slots=True)
class Things:
    """The things with a look; if a direction is given, those in that direction from the only thing like `anchor`."""

    look: Look
    plural: bool = False
    direction: Direction | None = None
    anchor: Look = ANY

    def among(self, scene: Scene) -> list[Thing] | None:
        """The matching things of a scene; None if there is no anchor, or more than one."""
        things = self.look.among(scene)
        if self.direction is None:
            return things
        anchors = self.anchor.among(scene)
        if len(anchors) != 1:
            return None
        return [thing for thing in things if thing.stands(self.direction, anchors[0])]

    def meant(self, scene: Scene) -> list[Thing] | None:
        """The referent of "the circle" (exactly one thing) or "the circles" (at least two); None if there is none."""
        things = self.among(scene)
        return things if things and (len(things) > 1) == self.plural else None


@dataclass(frozen=True, slots=True)
class Exist:
    """Are there such things?"""

    things: Things


@dataclass(frozen=True, slots=True)
class Verify:
    """Do the things have that value?"""

    things: Things
    property: Property
    value: str


@dataclass(frozen=True, slots=True)
class QueryValue:
    """Which value do the things have?"""

    things: Things
    property: Property


@dataclass(frozen=True, slots=True)
class Choose:
    """Which of two values do the things have?"""

    things: Things
    property: Property
    options: tuple[str, str]


@dataclass(frozen=True, slots=True)
class VerifyRelation:
    """Is the first in that direction from the second?"""

    first: Things
    direction: Direction
    second: Things


@dataclass(frozen=True, slots=True)
class ChooseRelation:
    """In which of two opposite directions from the second is the first?"""

    first: Things
    options: tuple[Direction, Direction]
    second: Things


@dataclass(frozen=True, slots=True)
class Every:
    """Do all things have that value?"""

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
    """Do the first and the second have the same value, or, if `same` is false, different values?"""

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
    Exist | Verify | QueryValue | Choose | VerifyRelation | ChooseRelation | Every | Logic | Alike | Bigger | More
    | Count | CountColours
)  # fmt: skip

OPPOSITE: dict[Direction, Direction] = {"left": "right", "right": "left", "above": "below", "below": "above"}


def solve(program: Program, scene: Scene) -> str | None:
    """The true answer; None if there is none, because "the circle" has no referent or a thing is in the middle."""
    match program:
        case Exist(things):
            matching = things.among(scene)
            return None if matching is None else yes_or_no(bool(matching))
        case Verify(things, attribute, value):
            actual = shared_value(things.meant(scene), attribute)
            return actual and yes_or_no(actual == value)
        case QueryValue(things, attribute):
            return shared_value(things.meant(scene), attribute)
        case Choose(things, attribute, options):
            actual = shared_value(things.meant(scene), attribute)
            return actual if actual in options else None
        case Every(attribute, value):
            return yes_or_no(all(value_of(thing, attribute) == value for thing in scene.things))
        case Count(look):
            count = len(look.among(scene))
            return str(count) if count <= MAX_COUNT else None
        case CountColours():
            return str(len({thing.colour for thing in scene.things}))
        case _:
            return _solve_two(program, scene)


def _solve_two(program: VerifyRelation | ChooseRelation | Logic | Alike | Bigger | More, scene: Scene) -> str | None:
    """The true answer to a question about two things or two looks."""
    match program:
        case Logic(joint, first_look, second_look):
            exist = [any(map(look.fits, scene.things)) for look in (first_look, second_look)]
            return yes_or_no(all(exist) if joint == "and" else any(exist))
        case More(first_look, second_look):
            return yes_or_no(len(first_look.among(scene)) > len(second_look.among(scene)))
        case _:
            first, second = program.first.meant(scene), program.second.meant(scene)
            if not first or not second or first[0] is second[0]:
                return None
            return _compare(program, first[0], second[0])


def _compare(program: VerifyRelation | ChooseRelation | Alike | Bigger, first: Thing, second: Thing) -> str | None:
    match program:
        case VerifyRelation(_, direction, _):
            return yes_or_no(first.stands(direction, second))
        case ChooseRelation(_, options, _):
            return next((direction for direction in options if first.stands(direction, second)), None)
        case Alike(_, _, attribute, same):
            return yes_or_no((value_of(first, attribute) == value_of(second, attribute)) == same)
        case Bigger():
            if first.size == second.size or first.shape == second.shape:
                return None
            return (first if first.size == "big" else second).shape


def answers(program: Program) -> tuple[str, ...]:
    """All possible answers to a question."""
    match program:
        case QueryValue(_, attribute):
            return VALUES[attribute]
        case Choose(_, _, options) | ChooseRelation(_, options, _):
            return options
        case Bigger(first, second):
            return str(first.look.shape), str(second.look.shape)
        case Count():
            return tuple(map(str, range(MAX_COUNT + 1)))
        case CountColours():
            return "1", "2"
        case _:
            return YES, NO


def mentioned(program: Program) -> tuple[Things, ...]:
    """The zero, one or two things a question mentions, in order; things in a direction come before their anchor."""
    match program:
        case Exist(things) | Verify(things, _, _) | QueryValue(things, _) | Choose(things, _, _):
            return (things, Things(things.anchor)) if things.direction else (things,)
        case Logic(_, first, second) | More(first, second):
            return Things(first), Things(second)
        case Count(look):
            return (Things(look, plural=True),)
        case Every():
            return (Things(ANY, plural=True),)
        case CountColours():
            return ()
        case _:
            return program.first, program.second


def definite_mentions(program: Program) -> tuple[Things, ...]:
    """The mentioned things that need a referent for the question to have an answer: "the circle", "the circles"."""
    match program:
        case Exist(things) | Verify(things, _, _) | QueryValue(things, _) | Choose(things, _, _):
            if things.direction:
                return (Things(things.anchor),)
            return () if isinstance(program, Exist) else (things,)
        case VerifyRelation() | ChooseRelation() | Alike() | Bigger():
            return program.first, program.second
        case _:
            return ()


def property_of(program: Program) -> Property | None:
    """The property that a question asks for or compares; None if it has none."""
    match program:
        case Verify() | QueryValue() | Choose() | Every() | Alike():
            return program.property
        case _:
            return None


def value_of(thing: Thing, attribute: Property) -> str | None:
    """A thing's value; None for a position in the middle, which is neither left nor right (top nor bottom)."""
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
    """The value that all things share; None if they differ or there are none."""
    values = {value_of(thing, attribute) for thing in things or ()}
    return values.pop() if len(values) == 1 else None


def yes_or_no(truth: bool) -> str:
    """The answer to a yes/no question."""
    return YES if truth else NO
