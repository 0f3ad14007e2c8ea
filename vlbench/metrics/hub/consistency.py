"""Consistency, the share of groups whose answers are all correct, as a module of `evaluate`.

>>> import evaluate
>>> from vlbench.metrics.hub import path
>>> consistency = evaluate.load(str(path("consistency")))
>>> answers, labels = ["True", "False", "True"], ["True", "True", "True"]
>>> consistency.compute(predictions=answers, references=labels, groups=["a", "a", "b"])
{'consistency': 50.0}
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate

from vlbench.core.examples import Example, Label, Query
from vlbench.core.results import Prediction
from vlbench.metrics.accuracy import consistency


class Consistency(evaluate.Metric):  # type: ignore[misc]
    """Consistency in percent; case is ignored."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text, "groups": text})
        inputs = "predictions: answers. references: labels. groups: the group of each example."
        return evaluate.MetricInfo(__doc__, "Suhr et al. 2019 (NLVR2)", features, inputs)

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], groups: Sequence[str]
    ) -> dict[str, float]:
        given = [Prediction(str(row), answer) for row, answer in enumerate(predictions)]
        examples = [
            Example(str(row), Query((), ""), Label(label), group)
            for row, (label, group) in enumerate(zip(references, groups, strict=True))
        ]
        return {"consistency": consistency(given, examples).value}
