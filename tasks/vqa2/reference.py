"""The reference of a VQA question: the annotators' answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from sys import intern

from vlbench._tasks.vqa2.normalise import Memo, normalise
from vlbench.core.errors import DataError
from vlbench.data.json.document import as_object
from vlbench.data.json.lines import Fields, text


@dataclass(frozen=True, slots=True)
class VqaAnswers:
    """The answers to a question.

    answers: as the annotators typed them, ten in the official files; empty if they are not public. records: for each
    answer a number that stands for the rest of its record (annotator, confidence); the official evaluation treats two
    records with the same answer and the same number as one. most: the most frequent answer according to the files.
    """

    answers: tuple[str, ...]
    records: tuple[int, ...]
    most: str = ""

    @property
    def consensus(self) -> str:
        """The most frequent answer, in the spelling of the answer lists."""
        return listed(self.most)

    def worths(self) -> Mapping[str, float]:
        """The soft targets: answer as in the answer lists -> 0.3, 0.6, 0.9 or 1 for 1, 2, 3, or at least 4 annotators.

        Source: Tan and Bansal 2019 and Kim et al. 2021.
        """
        return {answer: min(1.0, 3 * count / 10) for answer, count in Counter(map(listed, self.answers)).items()}


def listed(answer: str) -> str:
    """An answer as the published answer lists spell it: normalised as in the evaluation, without commas."""
    return _LISTED[answer]


_CHECKED = Memo(lambda answer: intern(text({"answer": answer}, "answer", "an annotation")))
"""The same text: the official files repeat a few thousand two million times, so that each is checked and kept once."""
_LISTED = Memo(lambda answer: normalise(answer).replace(",", ""))
UNKNOWN = VqaAnswers((), ())
TEN_RECORDS = tuple(range(10))
_ANSWER_IDS = [*range(1, 11)]


def read_answers(entries: Sequence[object], most: str, where: str) -> VqaAnswers:
    """Read the `answers` of an official annotation, of which `most` is the most frequent.

    `where` names the question in error messages. Raises DataError if there are no answers, or an entry is not an object
    with a string `answer`.
    """
    if not entries:
        raise DataError(f"{where}: 'answers' is empty where ten are expected: fetch the file again")
    try:  # the official records, without a call per answer; any other, and every fault, is left to the code below
        answers = tuple(map(_CHECKED.__getitem__, map(itemgetter("answer"), entries)))
        if list(map(itemgetter("answer_id"), entries)) == _ANSWER_IDS:
            return VqaAnswers(answers, TEN_RECORDS, intern(most))
    except (KeyError, TypeError, DataError):
        pass
    given = [as_object(entry, where) for entry in entries]
    return VqaAnswers(tuple(intern(text(entry, "answer", where)) for entry in given), _records(given), intern(most))


def _records(given: Sequence[Fields]) -> tuple[int, ...]:
    if [entry.get("answer_id") for entry in given] == _ANSWER_IDS:
        return TEN_RECORDS
    others = [{key: value for key, value in entry.items() if key != "answer"} for entry in given]
    return tuple(others.index(other) for other in others)
