"""Phrase a question in English, with at least five wordings per kind, and its answer in a full sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from vlbench.world.language import programs
from vlbench.world.language.programs import ANY, NO, YES, Program, Property, Things, mentioned, property_of
from vlbench.world.language.statements import Look
from vlbench.world.rng import pick
from vlbench.world.scenes.scene import Direction

QuestionKind = Literal[
    "exist", "exist_where", "verify", "verify_place", "verify_relation", "every", "both", "either",
    "same", "different", "more", "bigger", "count", "colours", "colour", "shape", "size", "place",
    "colour_where", "shape_where", "colour_of_all", "shape_of_all", "choose", "choose_place", "choose_relation",
]  # fmt: skip
QUESTION_KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)

_COLOUR = (
    "what colour {is_} {the}", "which colour {is_} {the}", "what is the colour of {the}",
    "what colour {does} {the} have", "which colour {does} {the} have", "in the {image} what colour {is_} {the}",
)  # fmt: skip
_SHAPE = (
    "what shape {is_} {the}", "which shape {is_} {the}", "what is the shape of {the}",
    "what type of shape {is_} {the}", "what kind of shape {is_} {the}", "what shape {does} {the} have",
)  # fmt: skip
_OF_ALL = (
    "what {property} is everything in the {image}", "which {property} is everything in the {image}",
    "what {property} does everything in the {image} have", "what {property} are all the {many}",
    "what is the {property} of all the {many}", "which {property} do all the {many} have",
)  # fmt: skip
TEMPLATES: dict[QuestionKind, tuple[str, ...]] = {
    "exist": ("is there {a}", "is there {a} in the {image}", "are there any {many}",
        "are there any {many} in the {image}", "does the {image} show {a}", "does the {image} contain {a}",
        "can {a} be seen"),
    "exist_where": ("is there {a} {direction} {the_other}", "are there any {many} {direction} {the_other}",
        "does the {image} show {a} {direction} {the_other}", "does the {image} contain {a} {direction} {the_other}",
        "can {a} be seen {direction} {the_other}"),
    "verify": ("is {the} {trait}", "is {the} in the {image} {trait}", "is it true that {the} is {trait}",
        "is {the} shown here {trait}", "in the {image} is {the} {trait}"),
    "verify_place": ("is {the} {at} of the {image}", "is {the} located {at} of the {image}",
        "is {the} placed {at} of the {image}", "does {the} lie {at} of the {image}",
        "can {the} be seen {at} of the {image}"),
    "verify_relation": ("is {the} {direction} {the_other}", "is {the} located {direction} {the_other}",
        "is {the} placed {direction} {the_other}", "does {the} lie {direction} {the_other}",
        "does {the} stand {direction} {the_other}", "is it true that {the} is {direction} {the_other}"),
    "every": ("is everything in the {image} {trait}", "are all the {many} {traits}", "is every {one} {trait}",
        "is each {one} in the {image} {trait}", "are the {many} all {traits}"),
    "both": ("is there {a} and {b}", "is there both {a} and {b}", "are there both {many} and {other_many}",
        "does the {image} show both {a} and {b}", "does the {image} contain {a} and also {b}",
        "can both {a} and {b} be seen"),
    "either": ("is there {a} or {b}", "is there either {a} or {b}", "are there any {many} or {other_many}",
        "does the {image} show {a} or {b}", "does the {image} contain either {a} or {b}", "can {a} or {b} be seen"),
    "same": ("are {the} and {the_other} the same {property}", "do {the} and {the_other} have the same {property}",
        "does {the} have the same {property} as {the_other}", "is {the} the same {property} as {the_other}",
        "is the {property} of {the} the same as that of {the_other}"),
    "different": ("are {the} and {the_other} different in {property}",
        "do {the} and {the_other} have different {property}s", "does {the} have another {property} than {the_other}",
        "is {the} different in {property} from {the_other}",
        "is the {property} of {the} different from that of {the_other}"),
    "more": ("are there more {many} than {other_many}", "are there fewer {other_many} than {many}",
        "does the {image} show more {many} than {other_many}",
        "does the {image} contain more {many} than {other_many}", "can more {many} than {other_many} be seen"),
    "bigger": ("which is bigger, {the} or {the_other}", "what is larger, {the} or {the_other}",
        "which one is bigger, {the} or {the_other}", "which of the two is larger, {the} or {the_other}",
        "is {the} or {the_other} bigger"),
    "count": ("how many {many} are there", "how many {many} are in the {image}", "how many {many} can be seen",
        "how many {many} does the {image} show", "what is the number of {many}", "what number of {many} is shown"),
    "colours": ("how many colours are there", "how many different colours are there",
        "how many different colours can be seen", "how many colours does the {image} show",
        "what is the number of different colours"),
    "colour": _COLOUR,
    "colour_where": _COLOUR,
    "shape": _SHAPE,
    "shape_where": _SHAPE,
    "colour_of_all": _OF_ALL,
    "shape_of_all": _OF_ALL,
    "size": ("how big {is_} {the}", "how large {is_} {the}", "what size {is_} {the}", "which size {is_} {the}",
        "what is the size of {the}", "what size {does} {the} have"),
    "place": ("on which side of the {image} is {the}", "on what side of the {image} does {the} lie",
        "on which side is {the} located", "on which side can {the} be seen", "which side of the {image} is {the} on"),
    "choose": ("is {the} {trait} or {other_trait}", "is {the} in the {image} {trait} or {other_trait}",
        "is {the} shown here {trait} or {other_trait}", "what {property} is {the}, {value} or {other_value}",
        "which {property} is {the}, {value} or {other_value}",
        "what is the {property} of {the}, {value} or {other_value}"),
    "choose_place": ("is {the} {at} or {other_at} of the {image}",
        "is {the} located {at} or {other_at} of the {image}", "is {the} placed {at} or {other_at} of the {image}",
        "does {the} lie {at} or {other_at} of the {image}", "can {the} be seen {at} or {other_at} of the {image}"),
    "choose_relation": ("is {the} {direction} or {other_direction} {the_other}",
        "is {the} located {direction} or {other_direction} {the_other}",
        "is {the} placed {direction} or {other_direction} {the_other}",
        "does {the} lie {direction} or {other_direction} {the_other}",
        "does {the} stand {direction} or {other_direction} {the_other}"),
}  # fmt: skip

DIRECTION_NAMES: dict[Direction, str] = {
    "left": "to the left of", "right": "to the right of", "above": "above", "below": "below",
}  # fmt: skip
_DIRECTIONS: dict[Direction, tuple[str, ...]] = {
    "left": ("to the left of", "left of"), "right": ("to the right of", "right of"),
    "above": ("above", "over"), "below": ("below", "under"),
}  # fmt: skip
AT = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
_MARK = re.compile("\0(.)")
_NO_THINGS = Things(ANY)


@dataclass(frozen=True, slots=True)
class Wording:
    """A sentence, and the words that name the things of its program.

    heads: (index of a word, words split at spaces; index of the thing in `mentioned(program)`).
    """

    text: str
    heads: tuple[tuple[int, int], ...]


def phrase_question(kind: QuestionKind, program: Program, rng: Random) -> Wording:
    """The question in English; `rng` selects the wording."""
    slots = _slots(program, rng) | {"image": pick(rng, ("picture", "image", "photo"))}
    return parse_marked(pick(rng, TEMPLATES[kind]).format_map(slots) + "?")


def parse_marked(marked: str) -> Wording:
    """Turn a sentence with the marks of `mark_name` into a wording; its first letter becomes upper case."""
    heads = [(n, int(mark[1])) for n, word in enumerate(marked.split()) for mark in _MARK.finditer(word)]
    text = _MARK.sub("", marked)
    return Wording(text[0].upper() + text[1:], tuple(heads))


def _slots(program: Program, rng: Random) -> dict[str, str]:
    """The values of the slots in the templates for a program."""
    first, second = (*mentioned(program), _NO_THINGS, _NO_THINGS)[:2]
    noun = pick(rng, ("object", "thing") if property_of(program) == "shape" else ("shape", "object", "thing"))
    one, other = mark_name(first.look, noun, 0), mark_name(second.look, noun, 1)
    slots = {
        "one": one,
        "many": mark_name(first.look, noun + "s", 0),
        "other_many": mark_name(second.look, noun + "s", 1),
        "a": _indefinite(first.look, one, rng),
        "b": f"{article(other)} {other}",
        "the": definite(first, noun, rng),
        "the_other": f"the {other}",
        "is_": "are" if first.plural else "is",
        "does": "do" if first.plural else "does",
        "direction": pick(rng, _DIRECTIONS[first.direction]) if first.direction else "",
    }
    return slots | _argument_slots(program, rng)


def _argument_slots(program: Program, rng: Random) -> dict[str, str]:
    match program:
        case programs.Verify(_, attribute, value) | programs.Every(attribute, value):
            return {"property": attribute, "at": AT.get(value, ""), **traits(attribute, value)}
        case programs.Choose(_, attribute, (value, other)):
            return {
                "property": attribute, "value": value, "other_value": other, "at": AT.get(value, ""),
                "other_at": AT.get(other, ""), "other_trait": traits(attribute, other)["trait"],
                **traits(attribute, value),
            }  # fmt: skip
        case programs.QueryValue(_, attribute) | programs.Alike(_, _, attribute, _):
            return {"property": attribute}
        case programs.VerifyRelation(_, direction, _):
            return {"direction": pick(rng, _DIRECTIONS[direction])}
        case programs.ChooseRelation(_, (direction, other_direction), _):
            # "to the left or to the right of", "above or below"
            return {
                "direction": DIRECTION_NAMES[direction].removesuffix(" of"),
                "other_direction": DIRECTION_NAMES[other_direction],
            }
        case _:
            return {}


def mark_name(look: Look, noun: str, mention: int) -> str:
    """ "big red circle" with the mark of the n-th mention; `noun` replaces a missing shape and sets the number."""
    shape = look.shape and look.shape + "s" * noun.endswith("s")
    return " ".join(word for word in (look.size, look.colour, shape or noun) if word) + f"\0{mention}"


def definite(things: Things, noun: str, rng: Random) -> str:
    """ "the big red circle", "the circles", "the circle to the left of the square"."""
    phrase = "the " + mark_name(things.look, noun + "s" * things.plural, 0)
    if things.direction:
        phrase += f" {pick(rng, _DIRECTIONS[things.direction])} the {mark_name(things.anchor, noun, 1)}"
    return phrase


def article(phrase: str) -> str:
    """The indefinite article of a phrase."""
    return "an" if phrase.startswith("o") else "a"


def _indefinite(look: Look, one: str, rng: Random) -> str:
    """ "a big red circle", "a red object" or, for a single size or colour, also "something red"."""
    if look.shape is None and (look.size is None) != (look.colour is None) and rng.random() < 0.3:
        return f"something\0000 {look.colour or look.size}"
    return f"{article(one)} {one}"


def traits(attribute: str, value: str) -> dict[str, str]:
    """A value as a predicate of one thing and of several: "red", "a circle" and "circles"."""
    return {"trait": f"a {value}", "traits": f"{value}s"} if attribute == "shape" else {"trait": value, "traits": value}


def full_answer(program: Program, answer: str, rng: Random) -> Wording:
    """The sentence that gives the answer; its mentions are numbered as in the question."""
    return parse_marked(_answer_sentence(program, answer, rng) + ".")


def _answer_sentence(program: Program, answer: str, rng: Random) -> str:
    negation = "" if answer == YES else " not"
    match program:
        case programs.Exist(things):
            return f"{answer}, there is {_some(things, answer)}"
        case programs.Verify(things, attribute, value):
            return f"{answer}, {_the(things, rng)} is{negation} {_predicate(attribute, value)}"
        case programs.QueryValue(things, attribute):
            verb = "are" if things.plural else "is"
            return f"{_the(things, rng)} {verb} {_predicate(attribute, answer, things.plural)}"
        case programs.Choose(things, attribute, _):
            return f"{_the(things, rng)} is {_predicate(attribute, answer)}"
        case programs.Every(attribute, value):
            return f"{answer},{negation} everything is {_predicate(attribute, value)}"
        case programs.Logic(joint, first_look, second_look):
            return f"{answer}, there is {_two(joint, first_look, second_look, answer)}"
        case programs.VerifyRelation(first, direction, second):
            return f"{answer}, {_the(first, rng)} is{negation} {DIRECTION_NAMES[direction]} {_other(second)}"
        case programs.ChooseRelation(first, options, second):
            direction = next(option for option in options if option == answer)
            return f"{_the(first, rng)} is {DIRECTION_NAMES[direction]} {_other(second)}"
        case programs.Alike(first, second, attribute, same):
            equal = (answer == YES) == same
            object_ = f"the same {attribute}" if equal else f"different {attribute}s"
            return f"{answer}, {_the(first, rng)} and {_other(second)} have {object_}"
        case programs.Bigger(first, second):
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


def _predicate(attribute: Property, value: str, plural: bool = False) -> str:
    """The predicate for a value: "red", "a circle", "on the left"."""
    if value in AT:
        return AT[value]
    return traits(attribute, value)["traits" if plural else "trait"]
