"""GQA's measures as its official evaluation defines them: over balanced questions only, answers letter for letter."""

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

Questions = Sequence[Example[GqaAnswer]]

COMMON = ("color", "material", "shape")
"""The choices of every question about what things have in common."""


def accuracy(predictions: Sequence[Prediction], examples: Questions) -> Score:
    """The share of balanced questions answered exactly; nothing is normalised.

    A prediction whose status is not "ok" is wrong. Intervals are clustered by picture.

    Raises:
        CoverageError: predictions and examples do not match one to one; those not balanced count here.
        DataError: examples without answers, as in the test splits.
        MetricAbsentError: no example is balanced.

    Source: Hudson and Manning 2019, official evaluation code.

    >>> from vlbench.core.examples import Query
    >>> asked = [Example("07", Query((), "Is it a cow?"), GqaAnswer("no", True, "verify"), "n41")]
    >>> accuracy([Prediction("07", "no")], asked).value, accuracy([Prediction("07", "No")], asked).value
    (100.0, 0.0)
    """
    return _accuracy("accuracy", lambda structural: True, predictions, examples)


def binary(predictions: Sequence[Prediction], examples: Questions) -> Score:
    """`accuracy` over the questions that offer their answers: all structural kinds but `query`."""
    return _accuracy("binary", lambda structural: structural != "query", predictions, examples)


def open_ended(predictions: Sequence[Prediction], examples: Questions) -> Score:
    """`accuracy` over the questions of structural kind `query`; the official name is `open`."""
    return _accuracy("open", lambda structural: structural == "query", predictions, examples)


def validity(predictions: Sequence[Prediction], examples: Questions) -> Score:
    """The share of balanced questions given an answer of the right sort, such as a colour where one is asked for.

    Raises:
        MetricAbsentError: a balanced question has no choices.
        CoverageError, DataError: as `accuracy`.
    """
    return _among("validity", lambda reference: reference.valid, predictions, examples)


def plausibility(predictions: Sequence[Prediction], examples: Questions) -> Score:
    """The share of balanced questions given an answer that occurs with their subject somewhere in the scene graphs.

    Raises:
        MetricAbsentError: a balanced question has no choices.
        CoverageError, DataError: as `accuracy`.
    """
    return _among("plausibility", lambda reference: reference.plausible, predictions, examples)


def consistency(predictions: Sequence[Prediction], examples: Questions) -> Score:
    """Over the balanced questions answered correctly: the mean share of right answers to what each of them entails.

    Questions that entail no other one are left out; n counts the rest. Where none of the rest is answered correctly
    the value is 0, as officially.

    Raises:
        MetricAbsentError: an entailed question is not among the examples, or nothing is entailed.
        CoverageError, DataError: as `accuracy`.
    """
    given, balanced = _balanced(predictions, examples)
    right = {example.id: given[example.id] == example.reference.answer for example in examples}
    entailing = [example for example in balanced if example.reference.entailed]
    unknown = {other for example in entailing for other in example.reference.entailed if other not in right}
    if unknown:
        raise MetricAbsentError(
            f"{len(unknown):,} questions that balanced ones entail are not among the examples ({first_five(unknown)}): "
            f"they are in the split of all questions, val_all for val (val_all_questions.json) and testdev_all for "
            f"testdev, so score that split, with a prediction for each of its questions"
        )
    if not entailing:
        raise MetricAbsentError("no balanced question entails another")
    values = {
        example.id: sum(map(right.__getitem__, example.reference.entailed)) / len(example.reference.entailed)
        for example in entailing
        if right[example.id]
    }
    return _mean("consistency", values, balanced) if values else Score("consistency", 0.0, 0, None, None, {})


def distribution(predictions: Sequence[Prediction], examples: Questions) -> Score:
    """How far the answers to the questions of a global group are from being as frequent as the right ones; 0 is best.

    The chi-square statistic over the right answers of each group, averaged by the groups' numbers of questions and
    divided by 100; no percentage. Answers that are right nowhere in their group are not counted. No interval is given.

    Raises:
        MetricAbsentError: no balanced question has a global group.
        CoverageError, DataError: as `accuracy`.
    """
    given, balanced = _balanced(predictions, examples)
    wanted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    said: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    for example in balanced:
        group = example.reference.global_group
        if group is not None:
            wanted[group][example.reference.answer] += 1
            said[group][given[example.id]] += 1
    if not wanted:
        raise MetricAbsentError("no balanced question has a global group")
    sizes = {group: answers.total() for group, answers in wanted.items()}
    # Exact sums, so that the order of questions does not show in the last digit.
    summed = fsum(_chi_square(wanted[group], said[group]) * size for group, size in sizes.items())
    n = sum(sizes.values())
    return Score("distribution", summed / n / 100, n, None, None, {}, higher_is_better=False)


def grounding(predictions: Sequence[Prediction], examples: Questions) -> Score:
    """Always absent: predictions do not say where a model looked; `attention.attention_grounding` takes maps that do.

    Raises:
        MetricAbsentError: always.
    """
    raise MetricAbsentError("predictions carry no attention to compare with the boxes of the objects asked about")


def _accuracy(
    name: str, counts: Callable[[str], bool], predictions: Sequence[Prediction], examples: Questions
) -> Score:
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
    name: str,
    choices: Callable[[GqaAnswer], Collection[str] | None],
    predictions: Sequence[Prediction],
    examples: Questions,
) -> Score:
    given, balanced = _balanced(predictions, examples)
    values: dict[str, float] = {}
    for example in balanced:
        allowed = choices(example.reference)
        if allowed is None:
            raise MetricAbsentError(
                f"question {example.id!r} has no choices: it takes the official evaluation's file of choices, which "
                f"there is for val and testdev"
            )
        if "Common" in example.reference.detailed:
            allowed = COMMON
        values[example.id] = 1.0 if given[example.id] in allowed else 0.0
    return _mean(name, values, balanced)


def _balanced(predictions: Sequence[Prediction], examples: Questions) -> tuple[Mapping[str, str | None], Questions]:
    """The answers given, by question, none where its status is not "ok"; and the questions that count."""
    given = {item.example_id: item.answer if item.status == "ok" else None for item in predictions}
    if not examples or len(given) < len(predictions) or given.keys() != {example.id for example in examples}:
        match(predictions, examples)  # names the faults, at twice the cost of seeing that there are some
    unanswered = [example.id for example in examples if not example.reference.answer]
    if unanswered:
        raise DataError(
            f"{len(unanswered):,} of {len(examples):,} questions have no answers to score against "
            f"({first_five(unanswered)}): those of test, challenge and submission are not public, so hand predictions "
            f"in to the official server, or score another split"
        )
    balanced = [example for example in examples if example.reference.is_balanced]
    if not balanced:
        raise MetricAbsentError(f"none of the {len(examples):,} questions is balanced, and no other counts")
    return given, balanced


def _chi_square(wanted: Counter[str], said: Counter[str | None]) -> float:
    return fsum((said[answer] - times) ** 2 / times for answer, times in wanted.items())


def _mean(name: str, values: Mapping[str, float], examples: Questions) -> Score:
    return mean_score(name, values, {example.id: example.group for example in examples})
