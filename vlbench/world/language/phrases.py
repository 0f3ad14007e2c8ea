"""Phrase a statement in English: at least five wordings per kind, 5 to 18 word pieces with the full stop."""

from __future__ import annotations

from random import Random

from vlbench.world.language.statements import Look, Statement, StatementKind
from vlbench.world.rng import pick
from vlbench.world.scenes.scene import Direction

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

TEMPLATES: dict[StatementKind, tuple[str, ...]] = {
    "exists": ("there is {a} in the {side} {image}", "the {side} {image} shows {a}",
        "{a} can be seen in the {side} {image}", "in the {side} {image} there is {a}",
        "the {side} {image} contains at least one {one}", "at least one {one} is in the {side} {image}"),
    "absent": ("there is no {one} in the {side} {image}", "the {side} {image} shows no {many}",
        "no {one} can be seen in the {side} {image}", "the {side} {image} does not contain any {many}",
        "in the {side} {image} there are no {many}", "not a single {one} is in the {side} {image}"),
    "both": ("both {image}s show {a}", "there is {a} in each {image}", "each of the two {image}s contains {a}",
        "{a} can be seen in both {image}s", "the left and the right {image} both show {a}"),
    "either": ("at least one of the two {image}s shows {a}", "there is {a} in one or both of the {image}s",
        "one or both {image}s contain {a}", "{a} can be seen in at least one {image}",
        "somewhere in the two {image}s there is {a}"),
    "neither": ("neither {image} shows {a}", "there is no {one} in either {image}",
        "neither of the two {image}s contains {a}", "no {one} can be seen in the two {image}s",
        "both {image}s are without {many}", "the {image}s do not show any {many}"),
    "crosswise": ("the left {image} shows {a} and the right {image} shows {b}",
        "there is {a} in the left {image} and {b} in the right",
        "the left {image} contains {a} while the right contains {b}",
        "{a} is in the left {image} and {b} is in the right",
        "the {image}s show {a} on the left and {b} on the right"),
    "count": ("there are {bound} {number} {many} in the {side} {image}",
        "the {side} {image} shows {bound} {number} {many}",
        "{bound} {number} {many} can be seen in the {side} {image}",
        "in the {side} {image} there are {bound} {number} {many}",
        "the {side} {image} contains {bound} {number} {many}",
        "the number of {many} in the {side} {image} is {bound} {number}"),
    "total": ("there are exactly {number} {many} in the two {image}s together",
        "the two {image}s together show exactly {number} {many}", "in total there are exactly {number} {many}",
        "both {image}s together contain exactly {number} {many}",
        "the number of {many} in both {image}s together is {number}"),
    "more": ("the {side} {image} shows more {many} than the {other} {image}",
        "there are more {many} in the {side} {image} than in the {other}",
        "more {many} can be seen in the {side} {image} than in the {other}",
        "the {other} {image} contains fewer {many} than the {side} {image}",
        "there are fewer {many} in the {other} {image} than in the {side}",
        "of the two {image}s the {side} shows more {many}"),
    "relation": ("in the {side} {image} {a} is {direction} {b}", "the {side} {image} shows {a} {direction} {b}",
        "there is {a} {direction} {b} in the {side} {image}", "{a} is {direction} {b} in the {side} {image}",
        "{a} stands {direction} {b} in the {side} {image}"),
    "every": ("every {one} in the {side} {image} is {trait}", "each {one} in the {side} {image} is {trait}",
        "in the {side} {image} every {one} is {trait}", "all {many} in the {side} {image} are {traits}",
        "the {many} in the {side} {image} are all {traits}"),
    "position": ("there is {a} in the {place} of the {side} {image}", "the {place} of the {side} {image} shows {a}",
        "{a} is in the {place} of the {side} {image}", "in the {side} {image} there is {a} in the {place}",
        "the {side} {image} shows {a} in the {place}"),
}  # fmt: skip

DIRECTION_WORDINGS: dict[Direction, tuple[str, ...]] = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "lower than"),
}


def phrase_statement(statement: Statement, rng: Random) -> str:
    """A sentence that means the statement; `rng` selects the wording."""
    image, noun = pick(rng, ("picture", "image")), pick(rng, ("shape", "object"))
    first, second = statement.first, statement.second
    sentence = pick(rng, TEMPLATES[statement.kind]).format(
        image=image,
        side=statement.side,
        other="right" if statement.side == "left" else "left",
        one=name_look(first, noun),
        many=name_look(first, noun) + "s",
        a=_indefinite(first, noun, rng),
        b=_indefinite(second, noun, rng),
        trait=_trait(second, "a {}"),
        traits=_trait(second, "{}s"),
        bound=statement.bound,
        number=NUMBERS[statement.number],
        direction=pick(rng, DIRECTION_WORDINGS[statement.direction]),
        place=statement.place,
    )
    return sentence[0].upper() + sentence[1:] + "."


def name_look(look: Look, noun: str) -> str:
    """ "big red circle"; `noun` replaces a shape that is not specified."""
    return " ".join(word for word in (look.size, look.colour, look.shape or noun) if word)


def _indefinite(look: Look, noun: str, rng: Random) -> str:
    """ "a big red circle", "a red object" or, for a single size or colour, also "something red"."""
    if look.shape is None and (look.size is None) != (look.colour is None) and rng.random() < 0.3:
        return f"something {look.colour or look.size}"
    return f"a {name_look(look, noun)}"


def _trait(look: Look, shape_form: str) -> str:
    """A look with one attribute as a predicate: "red", "big", "a circle" or "circles"."""
    return look.size or look.colour or shape_form.format(look.shape)
