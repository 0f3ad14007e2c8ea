"""Say a statement in English: at least five ways for each kind, 5 to 18 word pieces, full stop included."""

from __future__ import annotations

from random import Random

from vlbench.world.language.statements import Kind, Look, Statement
from vlbench.world.rng import pick
from vlbench.world.scenes.scene import Direction

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "exists": (
        "there is {a} in the {side} {picture}",
        "the {side} {picture} shows {a}",
        "{a} can be seen in the {side} {picture}",
        "in the {side} {picture} there is {a}",
        "the {side} {picture} contains at least one {one}",
        "at least one {one} is in the {side} {picture}",
    ),
    "absent": (
        "there is no {one} in the {side} {picture}",
        "the {side} {picture} shows no {many}",
        "no {one} can be seen in the {side} {picture}",
        "the {side} {picture} does not contain any {many}",
        "in the {side} {picture} there are no {many}",
        "not a single {one} is in the {side} {picture}",
    ),
    "both": (
        "both {picture}s show {a}",
        "there is {a} in each {picture}",
        "each of the two {picture}s contains {a}",
        "{a} can be seen in both {picture}s",
        "the left and the right {picture} both show {a}",
    ),
    "either": (
        "at least one of the two {picture}s shows {a}",
        "there is {a} in one or both of the {picture}s",
        "one or both {picture}s contain {a}",
        "{a} can be seen in at least one {picture}",
        "somewhere in the two {picture}s there is {a}",
    ),
    "neither": (
        "neither {picture} shows {a}",
        "there is no {one} in either {picture}",
        "neither of the two {picture}s contains {a}",
        "no {one} can be seen in the two {picture}s",
        "both {picture}s are without {many}",
        "the {picture}s do not show any {many}",
    ),
    "crosswise": (
        "the left {picture} shows {a} and the right {picture} shows {b}",
        "there is {a} in the left {picture} and {b} in the right",
        "the left {picture} contains {a} while the right contains {b}",
        "{a} is in the left {picture} and {b} is in the right",
        "the {picture}s show {a} on the left and {b} on the right",
    ),
    "count": (
        "there are {bound} {number} {many} in the {side} {picture}",
        "the {side} {picture} shows {bound} {number} {many}",
        "{bound} {number} {many} can be seen in the {side} {picture}",
        "in the {side} {picture} there are {bound} {number} {many}",
        "the {side} {picture} contains {bound} {number} {many}",
        "the number of {many} in the {side} {picture} is {bound} {number}",
    ),
    "total": (
        "there are exactly {number} {many} in the two {picture}s together",
        "the two {picture}s together show exactly {number} {many}",
        "in total there are exactly {number} {many}",
        "both {picture}s together contain exactly {number} {many}",
        "the number of {many} in both {picture}s together is {number}",
    ),
    "more": (
        "the {side} {picture} shows more {many} than the {other} {picture}",
        "there are more {many} in the {side} {picture} than in the {other}",
        "more {many} can be seen in the {side} {picture} than in the {other}",
        "the {other} {picture} contains fewer {many} than the {side} {picture}",
        "there are fewer {many} in the {other} {picture} than in the {side}",
        "of the two {picture}s the {side} shows more {many}",
    ),
    "relation": (
        "in the {side} {picture} {a} is {direction} {b}",
        "the {side} {picture} shows {a} {direction} {b}",
        "there is {a} {direction} {b} in the {side} {picture}",
        "{a} is {direction} {b} in the {side} {picture}",
        "{a} stands {direction} {b} in the {side} {picture}",
    ),
    "every": (
        "every {one} in the {side} {picture} is {trait}",
        "each {one} in the {side} {picture} is {trait}",
        "in the {side} {picture} every {one} is {trait}",
        "all {many} in the {side} {picture} are {traits}",
        "the {many} in the {side} {picture} are all {traits}",
    ),
    "position": (
        "there is {a} in the {place} of the {side} {picture}",
        "the {place} of the {side} {picture} shows {a}",
        "{a} is in the {place} of the {side} {picture}",
        "in the {side} {picture} there is {a} in the {place}",
        "the {side} {picture} shows {a} in the {place}",
    ),
}

DIRECTIONS_SAID: dict[Direction, tuple[str, ...]] = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "lower than"),
}


def say(statement: Statement, rng: Random) -> str:
    """A sentence that means the statement, the wording drawn from `rng`."""
    picture, noun = pick(rng, ("picture", "image")), pick(rng, ("shape", "object"))
    first, second = statement.first, statement.second
    sentence = pick(rng, TEMPLATES[statement.kind]).format(
        picture=picture,
        side=statement.side,
        other="right" if statement.side == "left" else "left",
        one=_name(first, noun),
        many=_name(first, noun) + "s",
        a=_a(first, noun, rng),
        b=_a(second, noun, rng),
        trait=_trait(second, "a {}"),
        traits=_trait(second, "{}s"),
        bound=statement.bound,
        number=NUMBERS[statement.number],
        direction=pick(rng, DIRECTIONS_SAID[statement.direction]),
        place=statement.place,
    )
    return sentence[0].upper() + sentence[1:] + "."


def _name(look: Look, noun: str) -> str:
    """ "big red circle"; `noun` stands in for an open shape."""
    return " ".join(word for word in (look.size, look.colour, look.shape or noun) if word)


def _a(look: Look, noun: str, rng: Random) -> str:
    """ "a big red circle", "a red object" or, where one attribute alone is said, also "something red"."""
    if look.shape is None and (look.size is None) != (look.colour is None) and rng.random() < 0.3:
        return f"something {look.colour or look.size}"
    return f"a {_name(look, noun)}"


def _trait(look: Look, shape_form: str) -> str:
    """A look with one attribute as what is said of something: "red", "big", "a circle" or "circles"."""
    return look.size or look.colour or shape_form.format(look.shape)
