"""What the doctor asks about, and when that is too little to tell anything."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from pathlib import Path

import pytest

from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.engine.doctor.learning import LUCK, judged_by_luck
from vlbench.engine.doctor.subject import chosen, retold, strangers


def example(name: str, picture: str, text: str = "a dog", group: str = "one") -> Example[Label]:
    return Example(name, Query((ImageRef(Path(picture), picture),), text), Label("True"), group)


def test_every_group_comes_before_a_second_one_of_any() -> None:
    examples = [example(str(row), str(row), group=str(row // 10)) for row in range(50)]
    assert sorted(one.group for one in chosen(examples, 3, 0)) == sorted({one.group for one in chosen(examples, 3, 0)})
    assert {one.group for one in chosen(examples, 5, 0)} == set("01234")
    seven = chosen(examples, 7, 0)
    assert {one.group for one in seven} == set("01234") and len({one.id for one in seven}) == 7
    assert [int(one.id) for one in seven] == sorted(int(one.id) for one in seven)
    assert {one.id for one in chosen(examples, 5, 0)} < {one.id for one in seven}


def test_one_group_is_filled_up_from() -> None:
    examples = [example(str(row), str(row)) for row in range(6)]
    assert len({one.id for one in chosen(examples, 4, 0)}) == 4
    assert chosen(examples, 64, 0) == examples


def test_each_gets_another_picture_where_there_is_one() -> None:
    examples = [example(str(row), picture, f"text {row}") for row, picture in enumerate("aabaa")]
    found = [one.query.images[0].key for one in strangers(examples)]
    assert found == ["b", "b", "a", "b", "b"]
    assert [one.query.text for one in strangers(examples)] == [one.query.text for one in examples]
    assert [one.query.images[0].key for one in strangers([example("1", "a"), example("2", "b")])] == ["b", "a"]


def test_each_gets_another_text_where_there_is_one() -> None:
    examples = [example(str(row), str(row), text) for row, text in enumerate("xxyxzz")]
    assert [one.query.text for one in retold(examples)] == ["y", "y", "x", "z", "x", "x"]
    assert [one.query.images for one in retold(examples)] == [one.query.images for one in examples]


def test_nothing_is_exchanged_where_all_are_the_same() -> None:
    examples = [example("1", "a"), example("2", "a")]
    assert strangers(examples) == examples and retold(examples) == examples


def tail(right: int, n: int, chance: Fraction) -> Fraction:
    """How likely so many right or more are, summed term by term."""
    return sum((comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(right, n + 1)), Fraction(0))


@pytest.mark.parametrize("chance", [Fraction(1, 2), Fraction(1, 3), Fraction(1, 16), Fraction(9, 10)])
@pytest.mark.parametrize("n", [1, 4, 14, 16, 24, 64, 120])
def test_what_is_no_luck_is_said_exactly_at_its_level(n: int, chance: Fraction) -> None:
    verdicts = [judged_by_luck(right, n, float(chance)).verdict for right in range(n + 1)]
    if tail(n, n, chance) > LUCK:
        assert set(verdicts) == {"skipped"}
    else:
        assert verdicts == ["ok" if tail(right, n, chance) > LUCK else "broken" for right in range(n + 1)]


def test_few_examples_that_are_right_by_luck_are_no_leak() -> None:
    check = judged_by_luck(4, 4, 0.5)
    assert check.verdict == "skipped" and "more --examples" in check.found
    assert judged_by_luck(64, 64, 1.0).verdict == "skipped"


def test_a_leak_from_no_chance_at_all() -> None:
    assert [judged_by_luck(right, 5, 0.0).verdict for right in (0, 1)] == ["ok", "broken"]
