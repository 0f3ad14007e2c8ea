"""VQA accuracy as in the official evaluation, and two variants under other names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from vlbench._tasks.vqa2.normalise import normalise, plain
from vlbench._tasks.vqa2.reference import TEN_RECORDS, VqaAnswers
from vlbench.core.columns import Columns, columns_of, number_texts
from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.results import Prediction, Score
from vlbench.metrics.coverage import in_order
from vlbench.metrics.uncertainty import mean_of_rows

Predictions = Sequence[Prediction]
Questions = Sequence[Example[VqaAnswers]]
Agreement = Callable[[str, Sequence[str], tuple[int, ...]], float]
"""Prediction, answers, records (both [A]) -> the score of the prediction in [0, 1]."""


def vqa_accuracy(predictions: Predictions, examples: Questions) -> Score:
    """The mean over questions of the agreement of the prediction with the annotators, leaving each one out in turn.

    Answers are normalised only if the annotators' answers differ; if they are all equal the prediction must equal them
    exactly. If k of ten annotators gave the predicted answer, the score is 0, .3, .6, .9, 1 for k = 0, 1, 2, 3, 4 and
    more. A prediction whose status is not "ok" scores 0. Confidence intervals are clustered by image.

    Raises:
        CoverageError: predictions and examples do not match one to one.
        DataError: examples have no answers, as in the test splits.

    Source: Antol et al. 2015, Goyal et al. 2017, official evaluation code.

    >>> from vlbench.core.examples import Query
    >>> answers = VqaAnswers(("net",) * 2 + ("The nets",) * 8, tuple(range(10)))
    >>> vqa_accuracy([Prediction("1", "Net.")], [Example("1", Query((), "?"), answers, "image")]).value
    60.0
    """
    return _score("vqa_accuracy", _leave_one_out, False, predictions, examples)


def vqa_simple(predictions: Predictions, examples: Questions) -> Score:
    """`vqa_accuracy` with the score min(k / 3, 1), without leaving annotators out."""
    return _score("vqa_simple", _at_least_three, False, predictions, examples)


def vqa_lenient(predictions: Predictions, examples: Questions) -> Score:
    """`vqa_accuracy` with answers always normalised, so that "Yes." equals "yes" also if all annotators agree."""
    return _score("vqa_lenient", _leave_one_out, True, predictions, examples)


def _score(
    name: str, agreement: Agreement, always_normalise: bool, predictions: Predictions, examples: Questions
) -> Score:
    given = in_order(predictions, examples).answers
    columns = columns_of(examples)
    by_count = [agreement("x", ["x"] * count + [""] * (10 - count), TEN_RECORDS) for count in range(11)]
    values = np.array(by_count)[columns.derive(_number_answers).count_agreeing(given, always_normalise)]
    for row in columns.derive(_rows_of_other_records):
        values[row] = _score_one(given[row], columns.references[row], agreement, always_normalise)
    return mean_of_rows(name, columns, values)


def _score_one(given: str | None, reference: VqaAnswers, agreement: Agreement, always_normalise: bool) -> float:
    """The score of one prediction, whatever the records of its question."""
    if given is None:
        return 0.0
    answers, answer = list(map(plain, reference.answers)), plain(given)
    if always_normalise or answers.count(answers[0]) < len(answers):
        answers, answer = list(map(normalise, answers)), normalise(answer)
    return agreement(answer, answers, reference.records)


@dataclass(frozen=True)
class _NumberedAnswers:
    """The annotators' answers to N questions as numbers, which are equal where the answers are.

    plain, normal: [N, 10], of the answers as `normalise.plain` and `normalise.normalise` return them. plain_numbers,
    normal_numbers: answer -> its number.
    """

    plain: NDArray[np.int64]
    normal: NDArray[np.int64]
    plain_numbers: Mapping[str, int]
    normal_numbers: Mapping[str, int]

    def count_agreeing(self, given: Sequence[str | None], always_normalise: bool) -> NDArray[np.int64]:
        """The number of annotators who gave the predicted answer: [N]. given: [N], None where there is no answer."""
        different: dict[str | None, tuple[int, int]] = dict.fromkeys(given, (-1, -1))
        for answer in different:
            if answer is not None:
                trimmed = plain(answer)
                numbers = self.plain_numbers.get(trimmed, -1), self.normal_numbers.get(normalise(trimmed), -1)
                different[answer] = numbers
        plain_given, normal_given = np.array([different[answer] for answer in given], np.int64).T[:, :, None]
        agreeing = (self.normal == normal_given).sum(axis=1)
        if always_normalise:
            return agreeing
        is_unanimous = (self.plain == self.plain[:, :1]).all(axis=1)
        return np.where(is_unanimous, (self.plain == plain_given).sum(axis=1), agreeing)


def _number_answers(columns: Columns[VqaAnswers]) -> _NumberedAnswers:
    """The answers of questions with ten records; other rows are of empty answers. Raises DataError: a question has no
    answers.
    """
    _reject_unanswered(columns)
    answers = [reference.answers for reference in columns.references]
    for row in columns.derive(_rows_of_other_records):
        answers[row] = ("",) * len(TEN_RECORDS)
    typed = number_texts(chain.from_iterable(answers), len(answers) * len(TEN_RECORDS))
    trimmed = number_texts(map(plain, typed.texts))
    normal = number_texts(map(normalise, trimmed.texts))
    plain_numbers = trimmed.numbers[typed.numbers].reshape(-1, len(TEN_RECORDS))
    return _NumberedAnswers(
        plain=plain_numbers,
        normal=normal.numbers[plain_numbers],
        plain_numbers={text: number for number, text in enumerate(trimmed.texts)},
        normal_numbers={text: number for number, text in enumerate(normal.texts)},
    )


def _rows_of_other_records(columns: Columns[VqaAnswers]) -> Sequence[int]:
    """The rows of questions that do not have ten answers by ten annotators."""
    return [row for row, answers in enumerate(columns.references) if answers.records != TEN_RECORDS]


def _reject_unanswered(columns: Columns[VqaAnswers]) -> None:
    unanswered = [
        name for name, reference in zip(columns.ids, columns.references, strict=True) if not reference.answers
    ]
    if unanswered:
        raise DataError(
            f"{len(unanswered):,} of {len(columns.ids):,} questions have no answers to score against "
            f"({first_five(unanswered)}): those of the test splits are not public, so submit predictions to the "
            f"official server, or score another split"
        )


def _leave_one_out(answer: str, answers: Sequence[str], records: tuple[int, ...]) -> float:
    """The mean over annotators of min(1, number of others who gave the answer / 3); equal records exclude each other.

    The sum is in whole thirds, so the result is correctly rounded and does not depend on the order of annotators.
    """
    agreeing = answers.count(answer)
    same = [record for record, given in zip(records, answers, strict=True) if given == answer]
    thirds = (len(answers) - agreeing) * min(3, agreeing)
    thirds += sum(min(3, agreeing - same.count(record)) for record in same)
    return thirds / (3 * len(answers))


def _at_least_three(answer: str, answers: Sequence[str], records: tuple[int, ...]) -> float:
    return min(3, answers.count(answer)) / 3
