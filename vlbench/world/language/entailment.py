"""The questions whose answers follow from an answer in any scene, e.g. "is the red circle blue?" has the answer no."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from vlbench.world.language.programs import (
    ANY,
    NO,
    OPPOSITE,
    VALUES,
    YES,
    Alike,
    Bigger,
    Choose,
    ChooseRelation,
    Every,
    Exist,
    Logic,
    Program,
    Property,
    QueryValue,
    Things,
    Verify,
    VerifyRelation,
    yes_or_no,
)
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
        case QueryValue(things, attribute):
            yield from _of_value(things, attribute, answer)
        case Choose(things, attribute, _):
            yield from _of_value(things, attribute, answer)
        case Verify(things, attribute, value) if answer == YES:
            yield from _of_value(things, attribute, value)
        case Verify(things, attribute, value) if len(VALUES[attribute]) == 2:
            yield from _of_value(things, attribute, next(other for other in VALUES[attribute] if other != value))
        case Every(attribute, value) if answer == YES:
            yield from _of_value(Things(ANY, plural=True), attribute, value)
        case Exist(things):
            yield from _of_existence(things, answer)
        case VerifyRelation(first, direction, second) if answer == YES:
            yield from _of_relation(ChooseRelation(first, (direction, OPPOSITE[direction]), second), direction)
        case ChooseRelation():
            yield from _of_relation(program, answer)
        case Logic():
            yield from _of_logic(program, answer)
        case Alike(first, second, attribute, same):
            other_answer = NO if answer == YES else YES
            yield Implied("different" if same else "same", Alike(first, second, attribute, not same), other_answer)
        case Bigger(first, second):
            for things in (first, second):
                yield Implied("size", QueryValue(things, "size"), "big" if things.look.shape == answer else "small")
            yield Implied("same", Alike(first, second, "size", same=True), NO)
        case _:
            return


def _of_value(things: Things, attribute: Property, value: str) -> Iterator[Implied]:
    """What follows if the things have this value."""
    if things.direction is None and not things.plural:
        yield from _of_single_thing(things, attribute, value)
    elif things == Things(ANY, plural=True):
        yield from (Implied("every", Every(attribute, other), yes_or_no(other == value)) for other in VALUES[attribute])
        if attribute in _ALL_KINDS:
            yield Implied(_ALL_KINDS[attribute], QueryValue(things, attribute), value)
    if attribute not in ("across", "down"):
        existing = Things(with_value(things.look, attribute, value), direction=things.direction, anchor=things.anchor)
        yield Implied("exist_where" if things.direction else "exist", Exist(existing), YES)


def _of_single_thing(thing: Things, attribute: Property, value: str) -> Iterator[Implied]:
    verify: QuestionKind = "verify_place" if attribute in ("across", "down") else "verify"
    choose: QuestionKind = "choose_place" if attribute in ("across", "down") else "choose"
    if attribute in _QUERY_KINDS:
        yield Implied(_QUERY_KINDS[attribute], QueryValue(thing, attribute), value)
    for other in VALUES[attribute]:
        yield Implied(verify, Verify(thing, attribute, other), yes_or_no(other == value))
        if other != value:
            yield Implied(choose, Choose(thing, attribute, (value, other)), value)
            yield Implied(choose, Choose(thing, attribute, (other, value)), value)


def _of_existence(things: Things, answer: str) -> Iterator[Implied]:
    """Existence carries over to looks with fewer attributes, absence to looks with more; an anchor always exists."""
    look = things.look
    if things.direction:
        yield Implied("exist", Exist(Things(things.anchor)), YES)
        weaker = [look] if answer == YES else []
    elif answer == YES:
        weaker = [Look(size=look.size), Look(colour=look.colour), Look(shape=look.shape)]
    else:
        weaker = []
        yield from (Implied("exist", Exist(Things(stronger)), NO) for stronger in _with_one_more(look))
    yield from (Implied("exist", Exist(Things(look)), YES) for look in weaker if look != ANY)


def _with_one_more(look: Look) -> Iterator[Look]:
    """The looks with one attribute more."""
    if look.size is None:
        yield from (Look(size, look.colour, look.shape) for size in SIZES)
    if look.colour is None:
        yield from (Look(look.size, colour, look.shape) for colour in COLOURS)
    if look.shape is None:
        yield from (Look(look.size, look.colour, shape) for shape in SHAPES)


def _of_relation(asked: ChooseRelation, answer: str) -> Iterator[Implied]:
    """What follows if the first is in the answer's direction from the second."""
    for direction in asked.options:
        opposite, truth = OPPOSITE[direction], yes_or_no(direction == answer)
        yield Implied("verify_relation", VerifyRelation(asked.first, direction, asked.second), truth)
        yield Implied("verify_relation", VerifyRelation(asked.second, opposite, asked.first), truth)
        if direction == answer:
            mirrored = ChooseRelation(asked.second, asked.options, asked.first)
            yield Implied("choose_relation", asked, direction)
            yield Implied("choose_relation", mirrored, opposite)


def _of_logic(asked: Logic, answer: str) -> Iterator[Implied]:
    """What follows if both exist or neither does; in the other two cases it is unknown which one exists."""
    if (asked.joint == "and") == (answer == YES):
        for look in (asked.first, asked.second):
            yield Implied("exist", Exist(Things(look)), answer)
        yield Implied("both", Logic("and", asked.first, asked.second), answer)
        yield Implied("either", Logic("or", asked.first, asked.second), answer)


def with_value(look: Look, attribute: Property, value: str) -> Look:
    """The look with that size, colour or shape added."""
    return Look(
        next((size for size in SIZES if attribute == "size" and size == value), look.size),
        next((colour for colour in COLOURS if attribute == "colour" and colour == value), look.colour),
        next((shape for shape in SHAPES if attribute == "shape" and shape == value), look.shape),
    )
