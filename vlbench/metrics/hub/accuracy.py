"""Accuracy, the share of answers equal to their label, as a module of `evaluate`.

>>> import evaluate
>>> from vlbench.metrics.hub import path
>>> accuracy = evaluate.load(str(path("accuracy")))
>>> accuracy.add_batch(predictions=["True", "false"], references=["True", "True"])
>>> accuracy.add_batch(predictions=["no", "maybe"], references=["no", "yes"])
>>> accuracy.compute()
{'accuracy': 50.0}
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate

from vlbench.core.examples import Example, Label, Query
from vlbench.core.results import Prediction
from vlbench.metrics.accuracy import accuracy


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """Accuracy in percent; case is ignored."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        inputs = "predictions: answers. references: labels."
        return evaluate.MetricInfo(__doc__, "Suhr et al. 2019 (NLVR2)", features, inputs)

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], groups: Sequence[str] = ()
    ) -> dict[str, float]:
        """`groups` is not used: `evaluate.combine` passes to every module the inputs of all modules."""
        given = [Prediction(str(row), answer) for row, answer in enumerate(predictions)]
        examples = [Example(str(row), Query((), ""), Label(label), str(row)) for row, label in enumerate(references)]
        return {"accuracy": accuracy(given, examples).value}
