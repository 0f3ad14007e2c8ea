"""VQA accuracy as in the official evaluation, and two variants under other names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlbench._tasks.vqa2.normalise import Memo, normalise, plain
from vlbench._tasks.vqa2.reference import TEN_RECORDS, VqaAnswers
from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.results import Prediction, Score
from vlbench.metrics.coverage import match
from vlbench.metrics.uncertainty import mean_score

Predictions = Sequence[Prediction]
Questions = Sequence[Example[VqaAnswers]]
Agreement = Callable[[str, Sequence[str], tuple[int, ...]], float]
"""Prediction, answers, records (both [A]) -> the score of the prediction in [0, 1]."""

SCORE_BY_COUNT = (0.0, 0.3, 0.6, 0.9, *[1.0] * 7)
"""The leave-one-out score with ten annotators, by the number of annotators who gave the answer."""


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
    match(predictions, examples)
    _reject_unanswered(examples)
    given = {item.example_id: item.answer for item in predictions if item.status == "ok"}
    trimmed, normal = Memo(plain), Memo(normalise)
    values: dict[str, float] = {}
    for example in examples:
        reference, answer = example.reference, given.get(example.id)
        if answer is None:
            values[example.id] = 0.0
            continue
        answers = list(map(trimmed.__getitem__, reference.answers))
        if always_normalise or answers.count(answers[0]) < len(answers):
            answers, answer = list(map(normal.__getitem__, answers)), normal[answer]
        else:
            answer = trimmed[answer]
        values[example.id] = agreement(answer, answers, reference.records)
    return mean_score(name, values, {example.id: example.group for example in examples})


def _reject_unanswered(examples: Questions) -> None:
    unanswered = [example.id for example in examples if not example.reference.answers]
    if unanswered:
        raise DataError(
            f"{len(unanswered):,} of {len(examples):,} questions have no answers to score against "
            f"({first_five(unanswered)}): those of the test splits are not public, so submit predictions to the "
            f"official server, or score another split"
        )


def _leave_one_out(answer: str, answers: Sequence[str], records: tuple[int, ...]) -> float:
    """The mean over annotators of min(1, number of others who gave the answer / 3); equal records exclude each other.

    The sum is in whole thirds, so the result is correctly rounded and does not depend on the order of annotators.
    """
    agreeing = answers.count(answer)
    if records is TEN_RECORDS:
        return SCORE_BY_COUNT[agreeing]
    same = [record for record, given in zip(records, answers, strict=True) if given == answer]
    thirds = (len(answers) - agreeing) * min(3, agreeing)
    thirds += sum(min(3, agreeing - same.count(record)) for record in same)
    return thirds / (3 * len(answers))


def _at_least_three(answer: str, answers: Sequence[str], records: tuple[int, ...]) -> float:
    return min(3, answers.count(answer)) / 3
