"""VQA accuracy as the official evaluation defines it, and two variants, as a module of `evaluate`.

>>> import evaluate
>>> from vlbench.metrics.hub import path
>>> vqa_accuracy = evaluate.load(str(path("vqa_accuracy")))
>>> vqa_accuracy.compute(predictions=["Net."], references=[["net"] * 2 + ["The nets"] * 8])
{'vqa_accuracy': 60.0, 'vqa_simple': 66.66666666666666, 'vqa_lenient': 60.0}
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import datasets
import evaluate

from vlbench.core.examples import Example, Query
from vlbench.core.results import Prediction


class VqaAccuracy(evaluate.Metric):  # type: ignore[misc]
    """VQA accuracy and its two variants, in percent."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.List(text)})
        inputs = "predictions: answers. references: for each, the annotators' answers, ten in VQA v2.0."
        return evaluate.MetricInfo(__doc__, "Antol et al. 2015, Goyal et al. 2017", features, inputs)

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        # Imported by name, as in the catalog: a task may use metrics, so no metric may import a task.
        task = import_module("vlbench._tasks.vqa2.metric")
        given = [Prediction(str(row), answer) for row, answer in enumerate(predictions)]
        annotated = [task.VqaAnswers(tuple(answers), tuple(range(len(answers)))) for answers in references]
        examples = [Example(str(row), Query((), ""), answers, str(row)) for row, answers in enumerate(annotated)]
        names = ("vqa_accuracy", "vqa_simple", "vqa_lenient")
        return {name: float(getattr(task, name)(given, examples).value) for name in names}
