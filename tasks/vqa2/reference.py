"""What people answered to a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import intern

from vlbench._tasks.vqa2.normalise import Memo, normalise
from vlbench.core.errors import DataError
from vlbench.data.json.document import as_object
from vlbench.data.json.lines import Fields, text


@dataclass(frozen=True, slots=True)
class VqaAnswers:
    """The answers as people typed them, ten in the official files; none where the organisers keep them.

    records: for each answer a number that stands for all else in its record (who gave it, how surely). Two records
    with the same answer and the same number are one and the same to the official evaluation. most: the answer that the
    files call the most frequent.
    """

    answers: tuple[str, ...]
    records: tuple[int, ...]
    most: str = ""

    @property
    def consensus(self) -> str:
        """The most frequent answer, in the spelling of the answer lists."""
        return listed(self.most)

    def worths(self) -> Mapping[str, float]:
        """Answer, in the spelling of the lists -> 0.3, 0.6, 0.9 or 1 where 1, 2, 3, or at least 4 people gave it.

        Source: Tan and Bansal 2019 and Kim et al. 2021.
        """
        return {answer: min(1.0, 3 * people / 10) for answer, people in Counter(map(listed, self.answers)).items()}


def listed(answer: str) -> str:
    """An answer as the published lists of answers spell it: the evaluation's spelling, without any comma."""
    return _LISTED[answer]


_LISTED = Memo(lambda answer: normalise(answer).replace(",", ""))
UNKNOWN = VqaAnswers((), ())
TEN = tuple(range(10))


def read_answers(entries: Sequence[object], most: str, where: str) -> VqaAnswers:
    """The `answers` of an official annotation and the `most` frequent of them; `where` names the question in errors.

    Raises:
        DataError: there are none, or an entry is not an object with a string `answer`.
    """
    given = [as_object(entry, where) for entry in entries]
    if not given:
        raise DataError(f"{where}: 'answers' is empty where ten are expected: mend the file or fetch it again")
    # The same few words come two million times in the official files.
    return VqaAnswers(tuple(intern(text(entry, "answer", where)) for entry in given), _records(given), intern(most))


def _records(given: Sequence[Fields]) -> tuple[int, ...]:
    if [entry.get("answer_id") for entry in given] == [*range(1, 11)]:
        return TEN
    others = [{key: value for key, value in entry.items() if key != "answer"} for entry in given]
    return tuple(others.index(other) for other in others)
