"""From generated text to an answer, rule by rule."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlbench.data.text import extraction
from vlbench.data.text.extraction import RULES, named_label, short_answer, verbatim

LABELS = ("entailment", "neutral", "contradiction")


def test_the_examples_in_the_text() -> None:
    assert doctest.testmod(extraction).failed == 0


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("Red", "red"),
        ("red.", "red"),
        ("  \n Answer: Two dogs.\nThey run.", "two dogs"),
        ("The answer is red", "red"),
        ("Short answer: \"no\"", "no"),
        ("answering machine", "answering machine"),
        ("3.5", "3.5"),
        ("", None),
        (" \n ", None),
        ("Answer:", None),
        ("Answer:\nred", "red"),
        ("**Red**", "red"),
        ("**Answer:** red!", "red"),
        ("*Two dogs.*", "two dogs"),
        ("\"red.\"", "red"),
        ("**", None),
    ],
)  # fmt: skip
def test_short_answers(written: str, answer: str | None) -> None:
    assert short_answer(written, ()) == answer


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("Entailment", "entailment"),
        ("It is neutral.", "neutral"),
        ("entailment or contradiction", None),
        ("contradictions", None),
        ("I cannot say", None),
        ("neutral, yes neutral", "neutral"),
        ("This is not a contradiction", None),
        ("It isn't neutral.", None),
        ("It isn\u2019t neutral.", None),
        ("There is no entailment here", None),
        ("It cannot be neutral, it is an entailment", None),
        ("No, it is neutral.", "neutral"),
        ("The men are not asleep: contradiction", "contradiction"),
        ("I do not know but perhaps neutral", "neutral"),
        ("entailment, no doubt", "entailment"),
    ],
)
def test_labels_are_whole_words(written: str, answer: str | None) -> None:
    assert named_label(written, LABELS) == answer


def test_verbatim() -> None:
    assert verbatim(" Two\nlines ", ()) == "Two\nlines" and verbatim(" ", ()) is None
    assert verbatim(" Neutral\n", LABELS) == "neutral" and verbatim("It is neutral", LABELS) is None


def test_a_label_that_is_a_negation_itself() -> None:
    assert named_label("No.", ("no", "yes")) == "no" and named_label("No, yes", ("no", "yes")) is None


@given(st.text(), st.sampled_from(sorted(RULES)))
def test_no_rule_ever_raises(written: str, rule: str) -> None:
    answer = RULES[rule](written, LABELS)
    assert answer is None or answer
