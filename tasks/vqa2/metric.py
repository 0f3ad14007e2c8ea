"""VQA accuracy, as the official evaluation defines it, and two variants under names of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlbench._tasks.vqa2.normalise import Memo, normalise, plain
from vlbench._tasks.vqa2.reference import TEN, VqaAnswers
from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.results import Prediction, Score
from vlbench.metrics.coverage import match
from vlbench.metrics.uncertainty import mean_score

Agreement = Callable[[str, Sequence[str], tuple[int, ...]], float]
"""Prediction, answers, records (both [A]) -> the worth of the prediction in [0, 1]."""

WORTH_OF_TEN = (0.0, 0.3, 0.6, 0.9, *[1.0] * 7)
"""What leaving each of ten people out in turn comes to, by how many gave the answer."""


def vqa_accuracy(predictions: Sequence[Prediction], examples: Sequence[Example[VqaAnswers]]) -> Score:
    """The mean over questions of how well an answer agrees with people's, each of them left out in turn.

    Answers are normalised only where people's differ; where they all agree an answer must equal theirs exactly. With k
    of ten people giving the answer, a question is worth 0, .3, .6, .9, 1 for k = 0, 1, 2, 3, 4 and more. A prediction
    whose status is not "ok" is worth 0. Intervals are clustered by image.

    Raises:
        CoverageError: predictions and examples do not match one to one.
        DataError: examples without answers, as in the test splits.

    Source: Antol et al. 2015, Goyal et al. 2017, official evaluation code.

    >>> from vlbench.core.examples import Query
    >>> people = VqaAnswers(("net",) * 2 + ("The nets",) * 8, tuple(range(10)))
    >>> vqa_accuracy([Prediction("1", "Net.")], [Example("1", Query((), "?"), people, "image")]).value
    60.0
    """
    return _score("vqa_accuracy", _leave_one_out, False, predictions, examples)


def vqa_simple(predictions: Sequence[Prediction], examples: Sequence[Example[VqaAnswers]]) -> Score:
    """`vqa_accuracy` with min(k / 3, 1), k people giving the answer, instead of leaving each of them out in turn."""
    return _score("vqa_simple", _at_least_three, False, predictions, examples)


def vqa_lenient(predictions: Sequence[Prediction], examples: Sequence[Example[VqaAnswers]]) -> Score:
    """`vqa_accuracy` with answers normalised also where people's all agree, so that "Yes." equals "yes"."""
    return _score("vqa_lenient", _leave_one_out, True, predictions, examples)


def _score(
    name: str,
    agreement: Agreement,
    always_normalise: bool,
    predictions: Sequence[Prediction],
    examples: Sequence[Example[VqaAnswers]],
) -> Score:
    match(predictions, examples)
    _refuse_unanswered(examples)
    given = {item.example_id: item.answer for item in predictions if item.status == "ok"}
    trimmed, normal = Memo(plain), Memo(normalise)
    values: dict[str, float] = {}
    for example in examples:
        people, answer = example.reference, given.get(example.id)
        if answer is None:
            values[example.id] = 0.0
            continue
        answers = list(map(trimmed.__getitem__, people.answers))
        if always_normalise or answers.count(answers[0]) < len(answers):
            answers, answer = list(map(normal.__getitem__, answers)), normal[answer]
        else:
            answer = trimmed[answer]
        values[example.id] = agreement(answer, answers, people.records)
    return mean_score(name, values, {example.id: example.group for example in examples})


def _refuse_unanswered(examples: Sequence[Example[VqaAnswers]]) -> None:
    unanswered = [example.id for example in examples if not example.reference.answers]
    if unanswered:
        raise DataError(
            f"{len(unanswered):,} of {len(examples):,} questions have no answers to score against "
            f"({first_five(unanswered)}): those of the test splits are not public, so hand predictions in to the "
            f"official server, or score another split"
        )


def _leave_one_out(answer: str, answers: Sequence[str], records: tuple[int, ...]) -> float:
    """The mean over people of min(1, others who gave the answer / 3); equal records of one answer leave each other out.

    In whole thirds, so that the result is the number nearest to the exact one, whatever the order of people.
    """
    agreeing = answers.count(answer)
    if records is TEN:
        return WORTH_OF_TEN[agreeing]
    own = [record for record, said in zip(records, answers, strict=True) if said == answer]
    thirds = (len(answers) - agreeing) * min(3, agreeing)
    thirds += sum(min(3, agreeing - own.count(record)) for record in own)
    return thirds / (3 * len(answers))


def _at_least_three(answer: str, answers: Sequence[str], records: tuple[int, ...]) -> float:
    return min(3, answers.count(answer)) / 3
