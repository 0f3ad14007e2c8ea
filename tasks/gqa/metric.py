"""GQA's metrics as in its official evaluation: over balanced questions only, with exact string comparison."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from math import fsum

from vlbench._tasks.gqa.reference import GqaAnswer
from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.results import MetricAbsentError, Prediction, Score
from vlbench.metrics.coverage import match
from vlbench.metrics.uncertainty import mean_score

Predictions = Sequence[Prediction]
Questions = Sequence[Example[GqaAnswer]]

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
    return _accuracy("accuracy", lambda structural: True, predictions, examples)


def binary(predictions: Predictions, examples: Questions) -> Score:
    """`accuracy` over the questions that offer their answers: all structural types except `query`."""
    return _accuracy("binary", lambda structural: structural != "query", predictions, examples)


def open_ended(predictions: Predictions, examples: Questions) -> Score:
    """`accuracy` over the questions of structural type `query`; the official name is `open`."""
    return _accuracy("open", lambda structural: structural == "query", predictions, examples)


def validity(predictions: Predictions, examples: Questions) -> Score:
    """The percentage of balanced questions with an answer of the right sort, such as a colour if one is asked for.

    Raises MetricAbsentError if a balanced question has no choices, and the errors of `accuracy`.
    """
    return _among("validity", lambda reference: reference.valid, predictions, examples)


def plausibility(predictions: Predictions, examples: Questions) -> Score:
    """The percentage of balanced questions with an answer that occurs with their subject in some scene graph.

    Raises MetricAbsentError if a balanced question has no choices, and the errors of `accuracy`.
    """
    return _among("plausibility", lambda reference: reference.plausible, predictions, examples)


def consistency(predictions: Predictions, examples: Questions) -> Score:
    """The mean, over balanced questions answered correctly, of the percentage of their entailed questions also correct.

    Questions that entail no other one are left out; n counts the rest. If none of the rest is answered correctly the
    value is 0, as in the official evaluation. Raises MetricAbsentError if an entailed question is not among the
    examples, or no question entails another, and the errors of `accuracy`.
    """
    given, balanced = _balanced(predictions, examples)
    correct = {example.id: given[example.id] == example.reference.answer for example in examples}
    entailing = [example for example in balanced if example.reference.entailed]
    unknown = {other for example in entailing for other in example.reference.entailed if other not in correct}
    if unknown:
        raise MetricAbsentError(
            f"{len(unknown):,} questions that balanced ones entail are not among the examples ({first_five(unknown)}): "
            f"they are in the split of all questions, val_all for val (val_all_questions.json) and testdev_all for "
            f"testdev, so score that split, with a prediction for each of its questions"
        )
    if not entailing:
        raise MetricAbsentError("no balanced question entails another")
    values = {
        example.id: sum(map(correct.__getitem__, example.reference.entailed)) / len(example.reference.entailed)
        for example in entailing
        if correct[example.id]
    }
    return _mean("consistency", values, balanced) if values else Score("consistency", 0.0, 0, None, None, {})


def distribution(predictions: Predictions, examples: Questions) -> Score:
    """The distance between the distributions of predicted and correct answers per global group; 0 is best.

    The chi-square statistic over the correct answers of each group, averaged with the groups' numbers of questions as
    weights, divided by 100; not a percentage. Answers that are never correct in their group do not count. There is no
    confidence interval. Raises MetricAbsentError if no balanced question has a global group, and those of `accuracy`.
    """
    given, balanced = _balanced(predictions, examples)
    correct: defaultdict[str, Counter[str]] = defaultdict(Counter)
    predicted: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    for example in balanced:
        group = example.reference.global_group
        if group is not None:
            correct[group][example.reference.answer] += 1
            predicted[group][given[example.id]] += 1
    if not correct:
        raise MetricAbsentError("no balanced question has a global group")
    sizes = {group: answers.total() for group, answers in correct.items()}
    # Exact sums, so that the order of questions does not change the last digit.
    total = fsum(_chi_square(correct[group], predicted[group]) * size for group, size in sizes.items())
    n = sum(sizes.values())
    return Score("distribution", total / n / 100, n, None, None, {}, higher_is_better=False)


def grounding(predictions: Predictions, examples: Questions) -> Score:
    """Always raises MetricAbsentError: predictions contain no attention; `attention.attention_grounding` takes maps."""
    raise MetricAbsentError("predictions carry no attention to compare with the boxes of the mentioned objects")


def _accuracy(name: str, counts: Callable[[str], bool], predictions: Predictions, examples: Questions) -> Score:
    given, balanced = _balanced(predictions, examples)
    values = {
        example.id: 1.0 if given[example.id] == example.reference.answer else 0.0
        for example in balanced
        if counts(example.reference.structural)
    }
    if not values:
        raise MetricAbsentError(f"none of the {len(balanced):,} balanced questions is {name}")
    return _mean(name, values, balanced)


def _among(
    name: str, choices: Callable[[GqaAnswer], Collection[str] | None], predictions: Predictions, examples: Questions
) -> Score:
    given, balanced = _balanced(predictions, examples)
    values: dict[str, float] = {}
    for example in balanced:
        allowed = choices(example.reference)
        if allowed is None:
            raise MetricAbsentError(
                f"question {example.id!r} has no choices: add the official evaluation's file of choices, which exists "
                f"for val and testdev"
            )
        if "Common" in example.reference.detailed:
            allowed = COMMON
        values[example.id] = 1.0 if given[example.id] in allowed else 0.0
    return _mean(name, values, balanced)


def _balanced(predictions: Predictions, examples: Questions) -> tuple[Mapping[str, str | None], Questions]:
    """The predicted answers by question (None if the status is not "ok"), and the balanced questions."""
    given = {item.example_id: item.answer if item.status == "ok" else None for item in predictions}
    if not examples or len(given) < len(predictions) or given.keys() != {example.id for example in examples}:
        match(predictions, examples)  # names the errors, at twice the cost of this test
    unanswered = [example.id for example in examples if not example.reference.answer]
    if unanswered:
        raise DataError(
            f"{len(unanswered):,} of {len(examples):,} questions have no answers to score against "
            f"({first_five(unanswered)}): those of test, challenge and submission are not public, so submit "
            f"predictions to the official server, or score another split"
        )
    balanced = [example for example in examples if example.reference.is_balanced]
    if not balanced:
        raise MetricAbsentError(f"none of the {len(examples):,} questions is balanced, and no other counts")
    return given, balanced


def _chi_square(correct: Counter[str], predicted: Counter[str | None]) -> float:
    return fsum((predicted[answer] - count) ** 2 / count for answer, count in correct.items())


def _mean(name: str, values: Mapping[str, float], examples: Questions) -> Score:
    return mean_score(name, values, {example.id: example.group for example in examples})
