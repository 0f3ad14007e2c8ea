"""Accuracy over examples and consistency over groups, as the NLVR and NLVR2 evaluation scripts define them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import eq

import numpy as np
from numpy.typing import NDArray

from vlbench.core.columns import Columns, columns_of
from vlbench.core.examples import Example, Label
from vlbench.core.results import Prediction, Score
from vlbench.metrics.coverage import in_order
from vlbench.metrics.uncertainty import Sample, groups_of, mean_of_rows


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
    return mean_of_rows("accuracy", columns_of(examples), _correct(predictions, examples).astype(np.float64))


def consistency(predictions: Sequence[Prediction], examples: Sequence[Example[Label]]) -> Score:
    """The share of groups whose examples are all correct, in percent [0, 100]. n counts groups, also those of one.
    Raises CoverageError: predictions and examples do not match one to one. Source: as `accuracy`.
    """
    wrong = ~_correct(predictions, examples)
    groups = columns_of(examples).derive(groups_of)
    all_correct = np.bincount(groups.numbers, wrong) == 0  # [G]
    sample = Sample(all_correct.astype(np.float64), np.arange(len(groups.texts)), len(groups.texts))
    per_group = dict(zip(groups.texts, sample.values.tolist(), strict=True))
    return replace(sample.score("consistency"), per_example=per_group)


def _correct(predictions: Sequence[Prediction], examples: Sequence[Example[Label]]) -> NDArray[np.bool_]:
    """Whether each of N examples is answered with its label: [N]."""
    answers = [None if answer is None else answer.lower() for answer in in_order(predictions, examples).answers]
    labels = columns_of(examples).derive(_labels)
    return np.fromiter(map(eq, answers, labels), np.bool_, len(labels))


def _labels(columns: Columns[Label]) -> list[str]:
    return [reference.value.lower() for reference in columns.references]
