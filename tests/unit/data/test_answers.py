"""Lists of answers: made of a train split, read from a file, written beside weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.core.errors import DataError
from vlbench.core.examples import Example, Label, Query
from vlbench.data.text.answers import (
    answers_sha256,
    frequent_answers,
    read_answers,
    transformers_answers,
    write_answers,
)


def examples(*answers: str) -> list[Example[Label]]:
    return [Example(str(row), Query((), "?"), Label(answer), "g") for row, answer in enumerate(answers)]


def test_frequent_ones_in_the_order_in_which_they_come() -> None:
    assert frequent_answers(examples("b", "a", "c", "a", "b", "b"), 2) == ("b", "a")
    assert frequent_answers(examples("b", "a", "c", "a", "b", "b"), 1) == ("b", "a", "c")


def test_too_few_to_choose_from() -> None:
    with pytest.raises(DataError, match="1 answers occur at least 3 times in the 6 training examples"):
        frequent_answers(examples("b", "a", "c", "a", "b", "b"), 3)


def test_a_list_comes_back_as_it_was_written(tmp_path: Path) -> None:
    answers = ("yes", "", "caf\u00e9", "2")
    write_answers(tmp_path / "answers.json", answers)
    assert read_answers(tmp_path / "answers.json") == answers


def test_an_object_is_read_by_place(tmp_path: Path) -> None:
    (tmp_path / "ans2label.json").write_text('{"no": 1, "yes": 0, "2": 2}')
    assert read_answers(tmp_path / "ans2label.json") == ("yes", "no", "2")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('["a", "a", "b"]', "twice .a."),
        ('["a"]', "holds 1 answers"),
        ('["a", 2]', "each a string"),
        ('"a"', "JSON list"),
        ('{"a": "b"}', "'a' is 'b'"),
        ("[", "not JSON"),
    ],
)
def test_bad_lists(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DataError, match=fault):
        read_answers(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("labels", "fault"), [('{"0": "red", "1": "red"}', "twice .red."), ('{"0": "a", "2": "b"}', "has no 1")]
)
def test_a_config_whose_rows_have_no_names_of_their_own(tmp_path: Path, labels: str, fault: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"id2label": {labels}}}')
    with pytest.raises(DataError, match=fault):
        transformers_answers(tmp_path / "config.json")


def test_the_hash_is_of_the_list_in_its_order() -> None:
    assert answers_sha256(["a", "b"]) == answers_sha256(("a", "b"))
    assert len({answers_sha256(answers) for answers in (["a", "b"], ["b", "a"], ["a, b"])}) == 3


@pytest.mark.parametrize(("name", "count"), [("vqa2_3129.json", 3129), ("gqa_1842.json", 1842)])
def test_the_published_lists(shared_data: Path, name: str, count: int) -> None:
    answers = read_answers(shared_data / "answers" / name)
    assert len(answers) == count
    assert {"yes", "no", "red"} <= set(answers)
