"""GQA's measures, as the official evaluation defines them, as a module of `evaluate`.

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
    """A balanced question: its id and picture, and what the official files say of it; empty where they say nothing."""

    id: str
    image: str
    answer: str
    structural: str
    detailed: str
    group: str
    entailed: list[str]
    valid: list[str]
    plausible: list[str]


class Gqa(evaluate.Metric):  # type: ignore[misc]
    """All measures whose evidence is there; percent, but for distribution, where less is better."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        texts = ("id", "image", "answer", "structural", "detailed", "group")
        question = dict.fromkeys(texts, text) | dict.fromkeys(("entailed", "valid", "plausible"), datasets.List(text))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Hudson and Manning 2019",
            inputs_description="predictions: answers. references: for each, the balanced question (see `Question`).",
            features=datasets.Features({"predictions": text, "references": question}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[Question]) -> dict[str, float]:
        # By name, as the catalogue does it: a task may use metrics, so no metric may import a task.
        task, reference = import_module("vlbench._tasks.gqa.metric"), import_module("vlbench._tasks.gqa.reference")
        given = [Prediction(one["id"], answer) for one, answer in zip(references, predictions, strict=True)]
        examples = [
            Example(
                one["id"],
                Query((), ""),
                reference.GqaAnswer(
                    one["answer"],
                    True,
                    one["structural"],
                    one["detailed"],
                    one["group"] or None,
                    tuple(one["entailed"]),
                    tuple(one["valid"]) or None,
                    tuple(one["plausible"]) or None,
                ),
                one["image"],
            )
            for one in references
        ]
        found = {}
        for name in METRICS:
            try:
                found[name] = float(getattr(task, "open_ended" if name == "open" else name)(given, examples).value)
            except MetricAbsentError:
                continue
        return found
