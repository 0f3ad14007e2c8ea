"""What is supported is decided by the cards alone, and docs/capabilities.md is what the code prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.cards import ModelCard
from vlbench.core.modes import Mode
from vlbench.engine.capabilities import page, unsupported
from vlbench.engine.evaluators.zero_shot import claim
from vlbench.heads.kinds import takes_prompts

PAGE = Path(__file__).resolve().parents[3] / "docs" / "capabilities.md"


def card(name: str) -> ModelCard:
    return next(card for card in catalog.transformers_cards() if card.name == name)


def test_the_page_is_current() -> None:
    remedy = "python -m vlbench.engine.capabilities > docs/capabilities.md"
    assert PAGE.read_text(encoding="utf8") == page(), f"write it again: {remedy}"


@pytest.mark.parametrize(
    ("model", "task", "mode", "reason"),
    [
        (
            "CLIPModel",
            "nlvr2",
            "zero-shot",
            "CLIPModel has no way to answer nlvr2 zero-shot: use --mode probe or finetune",
        ),
        ("CLIPModel", "snli_ve", "zero-shot", ""),
        ("CLIPModel", "coco_retrieval", "zero-shot", ""),
        ("CLIPModel", "coco_retrieval", "probe", "coco_retrieval ranks, which no linear head"),
        (
            "CLIPModel",
            "snli_ve",
            "eval",
            "CLIPModel brings a head for rank only, and snli_ve needs one that does classify",
        ),
        ("ViltModel", "coco_retrieval", "zero-shot", "zero-shot: use --mode finetune"),
        ("ViltModel", "vqa2", "eval", "ViltModel brings no head"),
        ("ViltForQuestionAnswering", "vqa2", "eval", ""),
        ("BlipForImageTextRetrieval", "flickr30k_retrieval", "zero-shot", ""),
        ("llava", "nlvr2", "zero-shot", ""),
        ("llava", "nlvr2", "probe", ""),
        ("llava", "vqa2", "probe", ""),
        ("llava", "coco_retrieval", "probe", "llava has no head for coco_retrieval (rank)"),
        ("llava", "coco_retrieval", "zero-shot", "llava has no way to answer coco_retrieval zero-shot"),
    ],
)
def test_unsupported(model: str, task: str, mode: Mode, reason: str) -> None:
    answer = unsupported(card(model), catalog.task_card(task), mode, own_weights=True)
    assert reason in answer and bool(reason) == bool(answer)


def test_only_a_model_without_features_of_pairs_takes_prompts() -> None:
    fake, llava, nlvr2 = catalog.model_card("fake"), card("llava"), catalog.task_card("nlvr2")
    assert takes_prompts(llava, nlvr2) and not takes_prompts(fake, nlvr2)
    assert not takes_prompts(llava, catalog.task_card("coco_retrieval"))


def test_claims() -> None:
    claims = {"no": "not so: {text}", "*": "{text}, so {label}"}
    assert claim(claims, "a {label}", "no") == "not so: a {label}"  # the text of an example is no template
    assert claim(claims, "why?", "yes") == "why?, so yes"
