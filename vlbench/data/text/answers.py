"""The answer vocabulary of a classifier, for tasks without a closed list of answers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vlbench.core.columns import columns_of
from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Examples, is_answered
from vlbench.data.cache.folder import atomic_write
from vlbench.data.json.document import read_json

ANSWERS_FILE = "answers.json"
"""The name of the file beside a classifier's weights that lists the answers of its rows."""


def frequent_answers(examples: Examples, min_count: int) -> tuple[str, ...]:
    """Return the consensus answers of at least `min_count` examples each, in the order of their first occurrence.

    Raises DataError if there are fewer than two.
    """
    counts = Counter(reference.consensus for reference in columns_of(examples).references if is_answered(reference))
    answers = tuple(answer for answer, count in counts.items() if count >= min_count)
    if len(answers) < 2:
        raise DataError(
            f"{len(answers)} answers occur at least {min_count} times in the {len(examples):,} training examples, "
            f"expected two or more: train on a larger split, or give a list with --answers"
        )
    return answers


def read_answers(path: Path) -> tuple[str, ...]:
    """Read a JSON list of answers, or a JSON object from answer to row number such as LXMERT's `ans2label`.

    Raises DataError if it cannot be read, is neither, or has an answer twice or fewer than two answers.
    """
    content = read_json(path)
    if isinstance(content, dict):
        rows = {answer: _row(row, answer, path) for answer, row in content.items()}
        content = sorted(rows, key=rows.__getitem__)
    if not isinstance(content, list) or not all(isinstance(answer, str) for answer in content):
        raise DataError(f"{path}: expected a JSON list of answers, each a string: correct the file or give another")
    if len(content) < 2:
        raise DataError(f"{path} holds {len(content)} answers: expected two or more, each once")
    return _each_once(content, path)


def transformers_answers(config: Path) -> tuple[str, ...]:
    """Return the labels of a transformers classifier's rows from its `config.json`; empty if it names none.

    Raises DataError if it cannot be read, or its `id2label` does not number the labels from 0 or has one twice.
    """
    content = read_json(config)
    labels = content.get("id2label") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or all(str(label).startswith("LABEL_") for label in labels.values()):
        return ()
    rows = [labels.get(str(row)) for row in range(len(labels))]
    if None in rows:
        raise DataError(
            f"{config}: id2label has no {rows.index(None)}: expected consecutive numbers from 0, restore the file"
        )
    return _each_once(list(map(str, rows)), config)


def write_answers(path: Path, answers: Sequence[str]) -> None:
    """Write the list in the format of `read_answers`."""
    atomic_write(path, json.dumps(list(answers), ensure_ascii=False, indent=0) + "\n")


def answers_sha256(answers: Sequence[str]) -> str:
    """Return the SHA-256 of a list of answers in its order."""
    return hashlib.sha256(json.dumps(list(answers)).encode()).hexdigest()


def _each_once(answers: list[str], path: Path) -> tuple[str, ...]:
    """The answers, after checking that no two rows have the same one."""
    if repeated := [answer for answer, count in Counter(answers).items() if count > 1]:
        raise DataError(f"{path} holds answers twice ({first_five(repeated)}): expected two or more, each once")
    return tuple(answers)


def _row(value: object, answer: str, path: Path) -> int:
    if not isinstance(value, int):
        raise DataError(f"{path}: the row number of {answer!r} is {value!r}: expected a whole number")
    return value
