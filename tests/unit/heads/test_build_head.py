"""Which head a model gets for a task, and what is unsupported."""

from __future__ import annotations

from typing import Any

import pytest

from vlbench.catalog import model_card
from vlbench.core.cards import HeadLayout, ModelCard, Recipe, SizeCard, SplitCard, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.heads.base import Head
from vlbench.heads.build import build_head
from vlbench.heads.classify import ClassifyHead, SoftHead
from vlbench.heads.rank import RankHead


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


def build(card: TaskCard, model: ModelCard, labels: tuple[str, ...] | None = None) -> Head:
    return build_head(card, model, 8, card.labels if labels is None else labels, Recipe())


def test_pair_and_classify_take_labels_width_and_layout() -> None:
    pair = build(task(), model("pair"))
    assert isinstance(pair, ClassifyHead) and pair.images == 2 and pair.labels == ("no", "yes")
    assert (pair.classifier[0].in_features, pair.classifier[0].out_features) == (16, 24)
    classify = build(task(output="classify", images_per_example=1), model("classify", "pair"))
    assert isinstance(classify, ClassifyHead) and classify.classifier[0].in_features == 8


def test_a_sizes_layout_wins_over_the_models() -> None:
    card, small = model("classify"), SizeCard(config={}, vocabulary="own", max_text=20, head=HeadLayout(hidden=2))
    card = card.model_copy(update={"sizes": {**card.sizes, "small": small}})
    assert (card.head_layout("tiny"), card.head_layout("small")) == (card.head, HeadLayout(hidden=2))
    toy = task(output="classify", images_per_example=1)
    wide, narrow = (build_head(toy, card, 8, toy.labels, Recipe(), card.head_layout(size)) for size in card.sizes)
    assert (wide.classifier[0].out_features, narrow.classifier[0].out_features) == (24, 16)


def test_only_sohos_released_size_has_its_released_head() -> None:
    card = model_card("soho")
    released = {name for name in card.sizes if card.head_layout(name).order == "relu-dropout"}
    assert released == {"official"}
    assert (card.head_layout("official").hidden, card.head_layout("official").dropout) == (4.0, 0.5)


def test_an_output_that_the_model_cannot_do_is_unsupported() -> None:
    with pytest.raises(VlbenchError, match="'toy' needs output 'pair', and model 'toy-model' can do classify"):
        build(task(), model("classify"))


def test_classifying_two_images_is_unsupported() -> None:
    with pytest.raises(VlbenchError, match="2 images per example where output 'classify' takes 1"):
        build(task(output="classify"), model("classify"))


def test_a_task_without_labels_is_unsupported() -> None:
    with pytest.raises(VlbenchError, match="0 labels"):
        build(task(labels=()), model("pair"))


def test_open_answers_get_a_soft_head_and_a_gallery_a_ranking_one() -> None:
    open_task = {"images_per_example": 1, "labels": ()}
    soft = build(task(output="classify", min_answer_count=2, **open_task), model("classify"), ("red", "blue", "2"))
    assert isinstance(soft, SoftHead) and soft.labels == ("red", "blue", "2")
    assert isinstance(build(task(output="rank", **open_task), model("rank")), RankHead)
    with pytest.raises(VlbenchError, match="takes 1"):
        build(task(output="rank", labels=()), model("rank"))


def test_a_card_has_a_closed_list_or_an_open_one() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        task(min_answer_count=2)
