"""What people answered to a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from sys import intern

from vlbench.core.errors import DataError
from vlbench.data.jsonfile import as_object
from vlbench.data.jsonlines import Fields, text


@dataclass(frozen=True, slots=True)
class VqaAnswers:
    """The answers as people typed them, ten in the official files; none where the organisers keep them.

    records: for each answer a number that stands for all else in its record (who gave it, how surely). Two records
    with the same answer and the same number are one and the same to the official evaluation.
    """

    answers: tuple[str, ...]
    records: tuple[int, ...]


UNKNOWN = VqaAnswers((), ())
TEN = tuple(range(10))


def read_answers(entries: Sequence[object], where: str) -> VqaAnswers:
    """The `answers` of an official annotation; `where` says in errors which file and question is meant.

    Raises:
        DataError: there are none, or an entry is not an object with a string `answer`.
    """
    given = [as_object(entry, where) for entry in entries]
    if not given:
        raise DataError(f"{where}: 'answers' is empty where ten are expected: mend the file or fetch it again")
    # The same few words come two million times in the official files.
    return VqaAnswers(tuple(intern(text(entry, "answer", where)) for entry in given), _records(given))


def _records(given: Sequence[Fields]) -> tuple[int, ...]:
    if [entry.get("answer_id") for entry in given] == [*range(1, 11)]:
        return TEN
    others = [{key: value for key, value in entry.items() if key != "answer"} for entry in given]
    return tuple(others.index(other) for other in others)
