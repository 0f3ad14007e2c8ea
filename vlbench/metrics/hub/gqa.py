"""GQA's metrics, as the official evaluation defines them, as a module of `evaluate`.

>>> import evaluate
>>> from vlbench.metrics.hub import path
>>> gqa = evaluate.load(str(path("gqa")))
>>> question = {"id": "07", "image": "n1", "answer": "red", "structural": "query", "detailed": "attr",
...             "group": "colour", "entailed": [], "valid": ["red", "blue"], "plausible": ["red"]}
>>> gqa.compute(predictions=["blue"], references=[question])["validity"]
100.0
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TypedDict

import datasets
import evaluate

from vlbench.core.examples import Example, Query
from vlbench.core.results import MetricAbsentError, Prediction

METRICS = ("accuracy", "binary", "open", "validity", "plausibility", "consistency", "distribution")


class Question(TypedDict):
    """A balanced question with the fields of the official files. group: the global group, None where the question has
    none; the empty string is a group of its own, as in the official code. valid, plausible: None without a file of
    choices; an empty list allows no answer.
    """

    id: str
    image: str
    answer: str
    structural: str
    detailed: str
    group: str | None
    entailed: list[str]
    valid: list[str] | None
    plausible: list[str] | None


class Gqa(evaluate.Metric):  # type: ignore[misc]
    """All metrics that the questions have the data for, in percent, except distribution, where lower is better."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        texts = ("id", "image", "answer", "structural", "detailed", "group")
        question = dict.fromkeys(texts, text) | dict.fromkeys(("entailed", "valid", "plausible"), datasets.List(text))
        # `evaluate` does not allow None in the first row of a plain string column.
        question["group"] = datasets.Value("large_string")
        features = datasets.Features({"predictions": text, "references": question})
        inputs = "predictions: answers. references: for each, the balanced question (see `Question`)."
        return evaluate.MetricInfo(__doc__, "Hudson and Manning 2019", features, inputs)

    def _compute(self, predictions: Sequence[str], references: Sequence[Question]) -> dict[str, float]:
        # Imported by name, as in the catalog: a task may use metrics, so no metric may import a task.
        task, reference = import_module("vlbench._tasks.gqa.metric"), import_module("vlbench._tasks.gqa.reference")
        given = [Prediction(question["id"], answer) for question, answer in zip(references, predictions, strict=True)]
        examples = [
            Example(
                question["id"], Query((), ""),
                reference.GqaAnswer(
                    question["answer"], True, question["structural"], question["detailed"], question["group"],
                    tuple(question["entailed"]), _choices(question["valid"]), _choices(question["plausible"]),
                ),
                question["image"],
            )
            for question in references
        ]  # fmt: skip
        values = {}
        for name in METRICS:
            try:
                values[name] = float(getattr(task, "open_ended" if name == "open" else name)(given, examples).value)
            except MetricAbsentError:
                continue
        return values


def _choices(answers: list[str] | None) -> tuple[str, ...] | None:
    return None if answers is None else tuple(answers)
