"""Answer normalisation of the official VQA evaluation.

Source: Antol et al. 2015 and Goyal et al. 2017, official evaluation code. Its quirks are kept on purpose, because
published results depend on them; a comment names each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = frozenset(("a", "an", "the"))
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(digit) for digit, word in enumerate(NUMBERS)} | {"none": "0"}
CONTRACTED = """
    'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
    he'd he'd've he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll ma'am might've mightn't mightn't've
    must've mustn't needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's
    there'd there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTED.split()
    for place, sign in enumerate(word)
    if sign == "'"
} | {"let's": "let's", "she's": "she's", "somebody'd": "somebodyd"}
"""Misspelt to correct, 120 entries: one apostrophe is missing, except for three irregular ones. Words are lower-cased
before the look-up, so the four entries with a capital `I` never apply."""

MAX_PERIODS = 32
"""The official code passes re.UNICODE, which is 32, as the number of replacements."""

_NUMBER_WITH_COMMA = re.compile(r"\d,\d", re.ASCII)
_PERIOD = re.compile(r"\.(?!\d)", re.ASCII)


def plain(answer: str) -> str:
    """The answer as compared if all ten annotators agree: line feeds and tabs become spaces, both ends are stripped."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalise(answer: str) -> str:
    """The answer as compared if the ten annotators differ: punctuation, then periods, then words; never raises."""
    return _words(_without_punctuation(plain(answer)))


def _without_punctuation(answer: str) -> str:
    """Replace signs by spaces, or delete a sign if it touches a space or any number in the answer contains a comma."""
    signs = [sign for sign in PUNCTUATION if sign in answer]
    if signs:
        delete_all = _NUMBER_WITH_COMMA.search(answer) is not None
        deleted = {sign for sign in signs if delete_all or f"{sign} " in answer or f" {sign}" in answer}
        answer = answer.translate({ord(sign): "" if sign in deleted else " " for sign in signs})
    return _PERIOD.sub("", answer, count=MAX_PERIODS) if "." in answer else answer


def _words(answer: str) -> str:
    digits = (DIGITS.get(word, word) for word in answer.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in digits if word not in ARTICLES)


class Memo(dict[Key, Value]):
    """A cache of a function: the answers and images of a split repeat a few."""

    def __init__(self, function: Callable[[Key], Value]) -> None:
        self._function = function

    def __missing__(self, key: Key) -> Value:
        value = self[key] = self._function(key)
        return value
