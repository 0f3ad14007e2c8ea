"""Answer a question in a full sentence, like GQA's `fullAnswer`."""

from __future__ import annotations

from random import Random

from vlbench.world.language.programs import (
    NO,
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
)
from vlbench.world.language.questions import (
    AT,
    DIRECTION_NAMES,
    Wording,
    article,
    definite,
    mark_name,
    parse_marked,
    traits,
)
from vlbench.world.language.statements import Look


def full_answer(program: Program, answer: str, rng: Random) -> Wording:
    """The sentence that gives the answer; its mentions are numbered as in the question."""
    return parse_marked(_sentence(program, answer, rng) + ".")


def _sentence(program: Program, answer: str, rng: Random) -> str:
    negation = "" if answer == YES else " not"
    match program:
        case Exist(things):
            return f"{answer}, there is {_some(things, answer)}"
        case Verify(things, attribute, value):
            return f"{answer}, {_the(things, rng)} is{negation} {_predicate(attribute, value)}"
        case QueryValue(things, attribute):
            return f"{_the(things, rng)} {_verb(things)} {_predicate(attribute, answer, things.plural)}"
        case Choose(things, attribute, _):
            return f"{_the(things, rng)} is {_predicate(attribute, answer)}"
        case Every(attribute, value):
            return f"{answer},{negation} everything is {_predicate(attribute, value)}"
        case Logic(joint, first_look, second_look):
            return f"{answer}, there is {_two(joint, first_look, second_look, answer)}"
        case VerifyRelation(first, direction, second):
            return f"{answer}, {_the(first, rng)} is{negation} {DIRECTION_NAMES[direction]} {_other(second)}"
        case ChooseRelation(first, options, second):
            direction = next(option for option in options if option == answer)
            return f"{_the(first, rng)} is {DIRECTION_NAMES[direction]} {_other(second)}"
        case Alike(first, second, attribute, same):
            equal = (answer == YES) == same
            object_ = f"the same {attribute}" if equal else f"different {attribute}s"
            return f"{answer}, {_the(first, rng)} and {_other(second)} have {object_}"
        case Bigger(first, second):
            if first.look.shape == answer:
                return f"{_the(first, rng)} is bigger than {_other(second)}"
            return f"{_other(second)} is bigger than {_the(first, rng)}"
        case _:
            raise TypeError(f"GQA asks no {type(program).__name__}")


def _the(things: Things, rng: Random) -> str:
    return definite(things, "shape", rng)


def _other(things: Things) -> str:
    return f"the {mark_name(things.look, 'shape', 1)}"


def _some(things: Things, answer: str) -> str:
    phrase = mark_name(things.look, "shape", 0)
    phrase = f"no {phrase}" if answer == NO else f"{article(phrase)} {phrase}"
    if things.direction:
        phrase += f" {DIRECTION_NAMES[things.direction]} the {mark_name(things.anchor, 'shape', 1)}"
    return phrase


def _two(joint: str, first: Look, second: Look, answer: str) -> str:
    name, other_name = mark_name(first, "shape", 0), mark_name(second, "shape", 1)
    if answer == YES:
        return f"a {name} {joint} a {other_name}"
    return f"no {name} {'or' if joint == 'and' else 'and'} no {other_name}"


def _verb(things: Things) -> str:
    return "are" if things.plural else "is"


def _predicate(attribute: Property, value: str, plural: bool = False) -> str:
    """The predicate for a value: "red", "a circle", "on the left"."""
    if value in AT:
        return AT[value]
    return traits(attribute, value)["traits" if plural else "trait"]
