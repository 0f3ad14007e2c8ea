"""The questions whose answers follow from an answer in any scene, e.g. "is the red circle blue?" has the answer no."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from vlbench.world.language import programs
from vlbench.world.language.programs import ANY, NO, OPPOSITE, VALUES, YES, Program, Property, Things, yes_or_no
from vlbench.world.language.questions import QuestionKind
from vlbench.world.language.statements import Look
from vlbench.world.scenes.scene import COLOURS, SHAPES, SIZES


class Implied(NamedTuple):
    """A question with the answer that another answer implies."""

    kind: QuestionKind
    program: Program
    answer: str


_QUERY_KINDS: dict[Property, QuestionKind] = {"colour": "colour", "shape": "shape", "size": "size", "across": "place"}
_ALL_KINDS: dict[Property, QuestionKind] = {"colour": "colour_of_all", "shape": "shape_of_all"}


@lru_cache(maxsize=1 << 15)
def implied(program: Program, answer: str) -> tuple[Implied, ...]:
    """The other questions whose answers follow if `answer` is the true answer to `program`."""
    return tuple(implication for implication in _implied(program, answer) if implication.program != program)


def _implied(program: Program, answer: str) -> Iterator[Implied]:
    match program:
        case programs.QueryValue(things, attribute) | programs.Choose(things, attribute, _):
            yield from _of_value(things, attribute, answer)
        case programs.Verify(things, attribute, value) if answer == YES:
            yield from _of_value(things, attribute, value)
        case programs.Verify(things, attribute, value) if len(VALUES[attribute]) == 2:
            yield from _of_value(things, attribute, next(other for other in VALUES[attribute] if other != value))
        case programs.Every(attribute, value) if answer == YES:
            yield from _of_value(Things(ANY, plural=True), attribute, value)
        case programs.Exist(things):
            yield from _of_existence(things, answer)
        case programs.VerifyRelation(first, direction, second) if answer == YES:
            yield from _of_relation(programs.ChooseRelation(first, (direction, OPPOSITE[direction]), second), direction)
        case programs.ChooseRelation():
            yield from _of_relation(program, answer)
        case programs.Logic():
            yield from _of_logic(program, answer)
        case programs.Alike(first, second, attribute, same):
            kind: QuestionKind = "different" if same else "same"
            yield Implied(kind, programs.Alike(first, second, attribute, not same), NO if answer == YES else YES)
        case programs.Bigger(first, second):
            for things in (first, second):
                size = "big" if things.look.shape == answer else "small"
                yield Implied("size", programs.QueryValue(things, "size"), size)
            yield Implied("same", programs.Alike(first, second, "size", same=True), NO)
        case _:
            return


def _of_value(things: Things, attribute: Property, value: str) -> Iterator[Implied]:
    """What follows if the things have this value."""
    if things.direction is None and not things.plural:
        yield from _of_single_thing(things, attribute, value)
    elif things == Things(ANY, plural=True):
        for other in VALUES[attribute]:
            yield Implied("every", programs.Every(attribute, other), yes_or_no(other == value))
        if attribute in _ALL_KINDS:
            yield Implied(_ALL_KINDS[attribute], programs.QueryValue(things, attribute), value)
    if attribute not in ("across", "down"):
        existing = Things(with_value(things.look, attribute, value), direction=things.direction, anchor=things.anchor)
        yield Implied("exist_where" if things.direction else "exist", programs.Exist(existing), YES)


def _of_single_thing(thing: Things, attribute: Property, value: str) -> Iterator[Implied]:
    verify: QuestionKind = "verify_place" if attribute in ("across", "down") else "verify"
    choose: QuestionKind = "choose_place" if attribute in ("across", "down") else "choose"
    if attribute in _QUERY_KINDS:
        yield Implied(_QUERY_KINDS[attribute], programs.QueryValue(thing, attribute), value)
    for other in VALUES[attribute]:
        yield Implied(verify, programs.Verify(thing, attribute, other), yes_or_no(other == value))
        if other != value:
            yield Implied(choose, programs.Choose(thing, attribute, (value, other)), value)
            yield Implied(choose, programs.Choose(thing, attribute, (other, value)), value)


def _of_existence(things: Things, answer: str) -> Iterator[Implied]:
    """Existence carries over to looks with fewer attributes, absence to looks with more; an anchor always exists."""
    look = things.look
    if things.direction:
        yield Implied("exist", programs.Exist(Things(things.anchor)), YES)
        weaker = [look] if answer == YES else []
    elif answer == YES:
        weaker = [Look(size=look.size), Look(colour=look.colour), Look(shape=look.shape)]
    else:
        weaker = []
        yield from (Implied("exist", programs.Exist(Things(stronger)), NO) for stronger in _with_one_more(look))
    yield from (Implied("exist", programs.Exist(Things(look)), YES) for look in weaker if look != ANY)


def _with_one_more(look: Look) -> Iterator[Look]:
    """The looks with one attribute more."""
    if look.size is None:
        yield from (Look(size, look.colour, look.shape) for size in SIZES)
    if look.colour is None:
        yield from (Look(look.size, colour, look.shape) for colour in COLOURS)
    if look.shape is None:
        yield from (Look(look.size, look.colour, shape) for shape in SHAPES)


def _of_relation(asked: programs.ChooseRelation, answer: str) -> Iterator[Implied]:
    """What follows if the first is in the answer's direction from the second."""
    for direction in asked.options:
        opposite, truth = OPPOSITE[direction], yes_or_no(direction == answer)
        yield Implied("verify_relation", programs.VerifyRelation(asked.first, direction, asked.second), truth)
        yield Implied("verify_relation", programs.VerifyRelation(asked.second, opposite, asked.first), truth)
        if direction == answer:
            mirrored = programs.ChooseRelation(asked.second, asked.options, asked.first)
            yield Implied("choose_relation", asked, direction)
            yield Implied("choose_relation", mirrored, opposite)


def _of_logic(asked: programs.Logic, answer: str) -> Iterator[Implied]:
    """What follows if both exist or neither does; in the other two cases it is unknown which one exists."""
    if (asked.joint == "and") == (answer == YES):
        for look in (asked.first, asked.second):
            yield Implied("exist", programs.Exist(Things(look)), answer)
        yield Implied("both", programs.Logic("and", asked.first, asked.second), answer)
        yield Implied("either", programs.Logic("or", asked.first, asked.second), answer)


def with_value(look: Look, attribute: Property, value: str) -> Look:
    """The look with that size, colour or shape added."""
    return Look(
        next((size for size in SIZES if attribute == "size" and size == value), look.size),
        next((colour for colour in COLOURS if attribute == "colour" and colour == value), look.colour),
        next((shape for shape in SHAPES if attribute == "shape" and shape == value), look.shape),
    )
