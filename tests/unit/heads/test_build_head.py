"""Which head stands between a task and a model, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from vlbench.core.cards import ModelCard, Recipe, SizeCard, SplitCard, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.heads.build import build_head
from vlbench.heads.classify import ClassifyHead
from vlbench.heads.pair import PairHead


def task(**changes: Any) -> TaskCard:
    facts = {
        "name": "toy",
        "title": "Toy",
        "version": 1,
        "description": "",
        "output": "pair",
        "images_per_example": 2,
        "labels": ("no", "yes"),
        "metrics": {"accuracy": "m:f"},
        "main_metric": "accuracy",
        "splits": {"s": SplitCard(files={})},
        "train_split": "s",
        "select_on": "s",
        "report_split": "s",
        "homepage": "",
        "licence": "",
        "citation": "",
    }
    return TaskCard.model_validate(facts | changes)


def model(*outputs: str) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "toy-model",
            "title": "",
            "description": "",
            "backbone": "m:C",
            "visual": "none",
            "outputs": outputs,
            "sizes": {"tiny": SizeCard(config={}, vocabulary="own", max_text=20)},
            "head": {"hidden": 3, "order": "norm-activation"},
            "recipes": {"default": Recipe()},
            "paper": "",
            "licence": "",
        }
    )


def test_pair_and_classify_take_labels_width_and_layout() -> None:
    pair = build_head(task(), model("pair"), 8)
    assert isinstance(pair, PairHead) and pair.images == 2 and pair.labels == ("no", "yes")
    assert (pair.classifier[0].in_features, pair.classifier[0].out_features) == (16, 24)
    classify = build_head(task(output="classify", images_per_example=1), model("classify", "pair"), 8)
    assert isinstance(classify, ClassifyHead) and classify.classifier[0].in_features == 8


def test_refuses_what_the_model_cannot_do() -> None:
    with pytest.raises(VlbenchError, match="'toy' needs output 'pair', and model 'toy-model' can do classify"):
        build_head(task(), model("classify"), 8)


def test_refuses_classifying_two_pictures() -> None:
    with pytest.raises(VlbenchError, match="2 pictures per example where output 'classify' takes 1"):
        build_head(task(output="classify"), model("classify"), 8)


def test_refuses_a_task_without_labels() -> None:
    with pytest.raises(VlbenchError, match="0 labels"):
        build_head(task(labels=()), model("pair"), 8)
