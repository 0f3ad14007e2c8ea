"""GQA's metrics as in its official evaluation: over balanced questions only, with exact string comparison."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from math import fsum
from operator import eq
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench._tasks.gqa.reference import GqaAnswer
from vlbench.core.columns import Columns, columns_of
from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.results import MetricAbsentError, Prediction, Score
from vlbench.metrics.coverage import in_order, rows_by_id
from vlbench.metrics.uncertainty import mean_of_rows

Predictions = Sequence[Prediction]
Questions = Sequence[Example[GqaAnswer]]
Rows: TypeAlias = NDArray[np.int64]
Choices = Sequence[Collection[str]]

COMMON = ("color", "material", "shape")
"""The choices of all questions about what things have in common."""


def accuracy(predictions: Predictions, examples: Questions) -> Score:
    """The percentage of balanced questions answered exactly; answers are not normalised.

    A prediction whose status is not "ok" is wrong. Confidence intervals are clustered by image.

    Raises:
        CoverageError: predictions and examples do not match one to one, including unbalanced questions.
        DataError: examples have no answers, as in the test splits.
        MetricAbsentError: no example is balanced.

    Source: Hudson and Manning 2019, official evaluation code.

    >>> from vlbench.core.examples import Query
    >>> asked = [Example("07", Query((), "Is it a cow?"), GqaAnswer("no", True, "verify"), "n41")]
    >>> accuracy([Prediction("07", "no")], asked).value, accuracy([Prediction("07", "No")], asked).value
    (100.0, 0.0)
    """
    return _accuracy("accuracy", _all_balanced, predictions, examples)


def binary(predictions: Predictions, examples: Questions) -> Score:
    """`accuracy` over the questions that offer their answers: all structural types except `query`."""
    return _accuracy("binary", _binary, predictions, examples)


def open_ended(predictions: Predictions, examples: Questions) -> Score:
    """`accuracy` over the questions of structural type `query`; the official name is `open`."""
    return _accuracy("open", _open, predictions, examples)


def validity(predictions: Predictions, examples: Questions) -> Score:
    """The percentage of balanced questions with an answer of the right sort, such as a colour if one is asked for.

    Raises MetricAbsentError if a balanced question has no choices, and the errors of `accuracy`.
    """
    return _among("validity", _valid, predictions, examples)


def plausibility(predictions: Predictions, examples: Questions) -> Score:
    """The percentage of balanced questions with an answer that occurs with their subject in some scene graph.

    Raises MetricAbsentError if a balanced question has no choices, and the errors of `accuracy`.
    """
    return _among("plausibility", _plausible, predictions, examples)


def consistency(predictions: Predictions, examples: Questions) -> Score:
    """The mean, over balanced questions answered correctly, of the percentage of their entailed questions also correct.

    Questions that entail no other one are left out; n counts the rest. If none of the rest is answered correctly the
    value is 0, as in the official evaluation. Raises MetricAbsentError if an entailed question is not among the
    examples, or no question entails another, and the errors of `accuracy`.
    """
    given, columns = _given(predictions, examples)
    entailing, starts, entailed = columns.derive(_entailments)
    correct = _is_correct(given, columns)
    values = np.add.reduceat(correct[entailed], starts, dtype=np.int64) / np.diff(starts, append=len(entailed))
    counted = correct[entailing]
    if not counted.any():
        return Score("consistency", 0.0, 0, None, None, {})
    return mean_of_rows("consistency", columns, values[counted], entailing[counted])


def distribution(predictions: Predictions, examples: Questions) -> Score:
    """The distance between the distributions of predicted and correct answers per global group; 0 is best.

    The chi-square statistic over the correct answers of each group, averaged with the groups' numbers of questions as
    weights, divided by 100; not a percentage. Answers that are never correct in their group do not count. There is no
    confidence interval. Raises MetricAbsentError if no balanced question has a global group, and those of `accuracy`.
    """
    given, columns = _given(predictions, examples)
    grouped = columns.derive(_answers_by_group)
    predicted = Counter(zip(grouped.groups, map(given.__getitem__, grouped.rows), strict=True))
    squares: defaultdict[str, list[float]] = defaultdict(list)
    for (group, answer), count in grouped.correct.items():
        squares[group].append((predicted[group, answer] - count) ** 2 / count)
    sizes = Counter(grouped.groups)
    # Exact sums, so that the order of questions does not change the last digit.
    total = fsum(fsum(squares[group]) * size for group, size in sizes.items())
    n = len(grouped.rows)
    return Score("distribution", total / n / 100, n, None, None, {}, higher_is_better=False)


def grounding(predictions: Predictions, examples: Questions) -> Score:
    """Always raises MetricAbsentError: predictions contain no attention; `attention.attention_grounding` takes maps."""
    raise MetricAbsentError("predictions carry no attention to compare with the boxes of the mentioned objects")


def _accuracy(
    name: str, rows_of: Callable[[Columns[GqaAnswer]], Rows], predictions: Predictions, examples: Questions
) -> Score:
    given, columns = _given(predictions, examples)
    rows = columns.derive(rows_of)
    if not len(rows):
        raise MetricAbsentError(f"none of the {len(columns.derive(_all_balanced)):,} balanced questions is {name}")
    return mean_of_rows(name, columns, _is_correct(given, columns)[rows].astype(np.float64), rows)


def _among(
    name: str, choices: Callable[[Columns[GqaAnswer]], Choices], predictions: Predictions, examples: Questions
) -> Score:
    given, columns = _given(predictions, examples)
    rows = columns.derive(_all_balanced)
    answers = map(given.__getitem__, rows.tolist())
    allowed = [answer in choice for answer, choice in zip(answers, columns.derive(choices), strict=True)]
    return mean_of_rows(name, columns, np.array(allowed, np.float64), rows)


def _given(predictions: Predictions, examples: Questions) -> tuple[Sequence[str | None], Columns[GqaAnswer]]:
    """The predicted answers [N], None where the status is not "ok", and the columns of the N questions."""
    given = in_order(predictions, examples).answers
    columns = columns_of(examples)
    columns.derive(_all_balanced)  # raises its errors before those of one metric
    return given, columns


def _is_correct(given: Sequence[str | None], columns: Columns[GqaAnswer]) -> NDArray[np.bool_]:
    """Whether each question is answered correctly: [N]."""
    return np.fromiter(map(eq, given, columns.derive(_answers)), np.bool_, len(given))


def _answers(columns: Columns[GqaAnswer]) -> Sequence[str]:
    """The correct answers: [N]. Raises DataError: they are not public."""
    answers = [reference.answer for reference in columns.references]
    if not all(answers):
        unanswered = [name for name, answer in zip(columns.ids, answers, strict=True) if not answer]
        raise DataError(
            f"{len(unanswered):,} of {len(answers):,} questions have no answers to score against "
            f"({first_five(unanswered)}): those of test, challenge and submission are not public, so submit "
            f"predictions to the official server, or score another split"
        )
    return answers


def _all_balanced(columns: Columns[GqaAnswer]) -> Rows:
    """The rows of balanced questions. Raises DataError: answers are not public. Raises MetricAbsentError: none is."""
    columns.derive(_answers)
    rows = np.flatnonzero([reference.is_balanced for reference in columns.references])
    if not len(rows):
        raise MetricAbsentError(f"none of the {len(columns.ids):,} questions is balanced, and no other counts")
    return rows


def _balanced(columns: Columns[GqaAnswer]) -> Sequence[GqaAnswer]:
    """The references of balanced questions, in the order of `_all_balanced`."""
    return [reference for reference in columns.references if reference.is_balanced]


def _open(columns: Columns[GqaAnswer]) -> Rows:
    """The rows of balanced questions of type `query`."""
    rows = columns.derive(_all_balanced)
    return rows[[reference.structural == "query" for reference in columns.derive(_balanced)]]


def _binary(columns: Columns[GqaAnswer]) -> Rows:
    """The rows of balanced questions of all types but `query`."""
    return np.setdiff1d(columns.derive(_all_balanced), columns.derive(_open), assume_unique=True)


def _valid(columns: Columns[GqaAnswer]) -> Choices:
    return _choices(columns, lambda reference: reference.valid)


def _plausible(columns: Columns[GqaAnswer]) -> Choices:
    return _choices(columns, lambda reference: reference.plausible)


def _choices(columns: Columns[GqaAnswer], choice: Callable[[GqaAnswer], Collection[str] | None]) -> Choices:
    """The answers allowed for each balanced question. Raises MetricAbsentError: a question has no choices."""
    choices: list[Collection[str]] = []
    for place, reference in enumerate(columns.derive(_balanced)):
        allowed = choice(reference)
        if allowed is None:
            question = columns.ids[columns.derive(_all_balanced)[place]]
            raise MetricAbsentError(
                f"question {question!r} has no choices: add the official evaluation's file of choices, which "
                f"exists for val and testdev"
            )
        choices.append(COMMON if "Common" in reference.detailed else allowed)
    return choices


def _entailments(columns: Columns[GqaAnswer]) -> tuple[Rows, Rows, Rows]:
    """The rows of the E balanced questions that entail others, the place where those of each begin: both [E]; and the
    rows of all entailed questions. Raises MetricAbsentError: an entailed question is not among the examples, or there
    is none.
    """
    row_of = columns.derive(rows_by_id)
    balanced = zip(columns.derive(_all_balanced).tolist(), columns.derive(_balanced), strict=True)
    entailing = [(row, reference.entailed) for row, reference in balanced if reference.entailed]
    names = list(chain.from_iterable(entailed for _, entailed in entailing))
    unknown = set(names) - row_of.keys()
    if unknown:
        raise MetricAbsentError(
            f"{len(unknown):,} questions that balanced ones entail are not among the examples ({first_five(unknown)}): "
            f"they are in the split of all questions, val_all for val (val_all_questions.json) and testdev_all for "
            f"testdev, so score that split, with a prediction for each of its questions"
        )
    if not entailing:
        raise MetricAbsentError("no balanced question entails another")
    ends = np.cumsum([len(entailed) for _, entailed in entailing])
    starts = np.concatenate([[0], ends[:-1]])
    return np.array([row for row, _ in entailing]), starts, np.fromiter(map(row_of.__getitem__, names), np.int64)


@dataclass(frozen=True)
class _GroupedAnswers:
    """The balanced questions that have a global group. rows, groups: their rows and groups. correct: (group, correct
    answer) -> number of questions.
    """

    rows: Sequence[int]
    groups: Sequence[str]
    correct: Counter[tuple[str, str]]


def _answers_by_group(columns: Columns[GqaAnswer]) -> _GroupedAnswers:
    """The balanced questions by global group. Raises MetricAbsentError: no balanced question has one."""
    balanced = zip(columns.derive(_all_balanced).tolist(), columns.derive(_balanced), strict=True)
    grouped = {row: reference.global_group for row, reference in balanced if reference.global_group is not None}
    if not grouped:
        raise MetricAbsentError("no balanced question has a global group")
    answers = map(columns.derive(_answers).__getitem__, grouped)
    return _GroupedAnswers(list(grouped), list(grouped.values()), Counter(zip(grouped.values(), answers, strict=True)))
