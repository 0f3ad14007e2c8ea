"""The examples that the doctor compares, and when they are too few for a result."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from pathlib import Path

import pytest

from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.engine.doctor.examined_model import sample_examples, with_other_images, with_other_texts
from vlbench.engine.doctor.learning import SIGNIFICANCE, check_for_leak


def make_example(name: str, picture: str, text: str = "a dog", group: str = "one") -> Example[Label]:
    return Example(name, Query((ImageRef(Path(picture), picture),), text), Label("True"), group)


def test_every_group_is_sampled_before_any_twice() -> None:
    examples = [make_example(str(row), str(row), group=str(row // 10)) for row in range(50)]
    assert sorted(example.group for example in sample_examples(examples, 3, 0)) == sorted(
        {example.group for example in sample_examples(examples, 3, 0)}
    )
    assert {example.group for example in sample_examples(examples, 5, 0)} == set("01234")
    seven = sample_examples(examples, 7, 0)
    assert {example.group for example in seven} == set("01234") and len({example.id for example in seven}) == 7
    assert [int(example.id) for example in seven] == sorted(int(example.id) for example in seven)
    assert {example.id for example in sample_examples(examples, 5, 0)} < {example.id for example in seven}


def test_a_single_group_gives_all_examples() -> None:
    examples = [make_example(str(row), str(row)) for row in range(6)]
    assert len({example.id for example in sample_examples(examples, 4, 0)}) == 4
    assert sample_examples(examples, 64, 0) == examples


def test_each_example_gets_another_image() -> None:
    examples = [make_example(str(row), picture, f"text {row}") for row, picture in enumerate("aabaa")]
    others = [example.query.images[0].key for example in with_other_images(examples)]
    assert others == ["b", "b", "a", "b", "b"]
    assert [example.query.text for example in with_other_images(examples)] == [
        example.query.text for example in examples
    ]
    assert [
        example.query.images[0].key for example in with_other_images([make_example("1", "a"), make_example("2", "b")])
    ] == ["b", "a"]


def test_each_example_gets_another_text() -> None:
    examples = [make_example(str(row), str(row), text) for row, text in enumerate("xxyxzz")]
    assert [example.query.text for example in with_other_texts(examples)] == ["y", "y", "x", "z", "x", "x"]
    assert [example.query.images for example in with_other_texts(examples)] == [
        example.query.images for example in examples
    ]


def test_nothing_is_exchanged_if_all_are_the_same() -> None:
    examples = [make_example("1", "a"), make_example("2", "a")]
    assert with_other_images(examples) == examples and with_other_texts(examples) == examples


def tail(right: int, n: int, probability: Fraction) -> Fraction:
    """The probability of at least so many right answers, summed term by term."""
    return sum((comb(n, k) * probability**k * (1 - probability) ** (n - k) for k in range(right, n + 1)), Fraction(0))


@pytest.mark.parametrize("probability", [Fraction(1, 2), Fraction(1, 3), Fraction(1, 16), Fraction(9, 10)])
@pytest.mark.parametrize("n", [1, 4, 14, 16, 24, 64, 120])
def test_the_leak_check_has_exactly_its_significance(n: int, probability: Fraction) -> None:
    statuses = [check_for_leak(right, n, float(probability)).verdict for right in range(n + 1)]
    if tail(n, n, probability) > SIGNIFICANCE:
        assert set(statuses) == {"skipped"}
    else:
        assert statuses == ["ok" if tail(right, n, probability) > SIGNIFICANCE else "broken" for right in range(n + 1)]


def test_few_examples_that_can_be_guessed_are_no_leak() -> None:
    check = check_for_leak(4, 4, 0.5)
    assert check.verdict == "skipped" and "more --examples" in check.found
    assert check_for_leak(64, 64, 1.0).verdict == "skipped"


def test_any_right_answer_is_a_leak_if_guessing_gives_none() -> None:
    assert [check_for_leak(right, 5, 0.0).verdict for right in (0, 1)] == ["ok", "broken"]
