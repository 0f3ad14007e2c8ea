"""Accuracy over examples and consistency over groups, as the NLVR and NLVR2 evaluation scripts define them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlbench.core.examples import Example, Label
from vlbench.core.results import Prediction, Score
from vlbench.metrics.coverage import match
from vlbench.metrics.uncertainty import mean_score


def accuracy(predictions: Sequence[Prediction], examples: Sequence[Example[Label]]) -> Score:
    """The share of examples answered with their label, in percent [0, 100]; case is ignored. n counts examples.

    A prediction whose status is not "ok" is wrong. The interval clusters examples by their group.
    Raises CoverageError: predictions and examples do not match one to one.
    Source: Suhr et al. 2019 (NLVR2) and 2017 (NLVR, where it is called precision), official metrics scripts.

    >>> from vlbench.core.examples import Query
    >>> split = [Example(str(row), Query((), ""), Label("True"), "statement") for row in range(4)]
    >>> accuracy([Prediction("0", "True"), *(Prediction(str(row), "False") for row in (1, 2, 3))], split).value
    25.0
    """
    correct = _correct(predictions, examples)
    groups = {example.id: example.group for example in examples}
    return mean_score("accuracy", {name: float(is_correct) for name, is_correct in correct.items()}, groups)


def consistency(predictions: Sequence[Prediction], examples: Sequence[Example[Label]]) -> Score:
    """The share of groups whose examples are all correct, in percent [0, 100]. n counts groups, also those of one.
    Raises CoverageError: predictions and examples do not match one to one. Source: as `accuracy`.
    """
    correct = _correct(predictions, examples)
    all_correct: dict[str, float] = {}
    for example in examples:
        all_correct[example.group] = float(all_correct.get(example.group, 1.0) and correct[example.id])
    return mean_score("consistency", all_correct, {group: group for group in all_correct})


def _correct(predictions: Sequence[Prediction], examples: Sequence[Example[Label]]) -> Mapping[str, bool]:
    match(predictions, examples)
    answers = {item.example_id: item.answer.lower() for item in predictions if item.status == "ok"}
    return {example.id: answers.get(example.id) == example.reference.value.lower() for example in examples}
