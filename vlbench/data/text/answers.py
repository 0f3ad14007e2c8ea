"""Which answers a classifier knows, where a task has no closed list of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Answered, Example
from vlbench.data.cache.folder import atomic_write
from vlbench.data.json.document import read_json

ANSWERS_FILE = "answers.json"
"""Beside the weights of a classifier over such a list: its rows are these answers."""


def frequent_answers(examples: Sequence[Example[Any]], min_count: int) -> tuple[str, ...]:
    """The answers that stand for at least `min_count` examples, in the order in which they first come.

    Raises:
        DataError: fewer than two, which leaves nothing to choose from.
    """
    counts = Counter(example.reference.consensus for example in examples if isinstance(example.reference, Answered))
    answers = tuple(answer for answer, times in counts.items() if times >= min_count)
    if len(answers) < 2:
        raise DataError(
            f"{len(answers)} answers come at least {min_count} times in the {len(examples):,} training examples, "
            f"expected two or more: train on a larger split, or give a list with --answers"
        )
    return answers


def read_answers(path: Path) -> tuple[str, ...]:
    """A list of answers: a JSON list of strings, or an object from answer to place, as LXMERT's `ans2label`.

    Raises:
        DataError: it cannot be read, is neither, or holds an answer twice or fewer than two.
    """
    content = read_json(path)
    if isinstance(content, dict):
        places = {answer: _place(place, answer, path) for answer, place in content.items()}
        content = sorted(places, key=places.__getitem__)
    if not isinstance(content, list) or not all(isinstance(answer, str) for answer in content):
        raise DataError(f"{path}: expected a JSON list of answers, each a string: mend the file or give another")
    if len(content) < 2:
        raise DataError(f"{path} holds {len(content)} answers: expected two or more, each once")
    return _each_once(content, path)


def transformers_answers(config: Path) -> tuple[str, ...]:
    """What the rows of a transformers model's classifier stand for, by its `config.json`; empty where it says nothing.

    Raises:
        DataError: it cannot be read, or its `id2label` does not number the labels from 0 or holds one twice.
    """
    content = read_json(config)
    labels = content.get("id2label") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or all(str(label).startswith("LABEL_") for label in labels.values()):
        return ()
    rows = [labels.get(str(row)) for row in range(len(labels))]
    if None in rows:
        raise DataError(f"{config}: id2label has no {rows.index(None)}: expected numbers from 0 on, restore the file")
    return _each_once(list(map(str, rows)), config)


def write_answers(path: Path, answers: Sequence[str]) -> None:
    """Write the list so that `read_answers` gives it back."""
    atomic_write(path, json.dumps(list(answers), ensure_ascii=False, indent=0) + "\n")


def answers_sha256(answers: Sequence[str]) -> str:
    """The hash of a list: equal lists in equal order have equal ones, wherever they came from."""
    return hashlib.sha256(json.dumps(list(answers)).encode()).hexdigest()


def _each_once(answers: list[str], path: Path) -> tuple[str, ...]:
    """The answers, none of which may be the name of two rows."""
    if twice := [answer for answer, times in Counter(answers).items() if times > 1]:
        raise DataError(f"{path} holds answers twice ({first_five(twice)}): expected two or more, each once")
    return tuple(answers)


def _place(value: object, answer: str, path: Path) -> int:
    if not isinstance(value, int):
        raise DataError(f"{path}: the place of {answer!r} is {value!r}: expected a whole number")
    return value
