"""LXMERT's pretraining: labels of all regions, answers of some texts; its values are in test_crossmodal_golden.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Query
from vlbench.models.layers.crossmodal import CrossModalConfig
from vlbench.models.lxmert.backbone import LXMERT
from vlbench.models.lxmert.pretraining import NO_ANSWER, LXMERTPretraining, LXMERTPretrainingConfig

OBJECTS, ATTRIBUTES = 4, 3
WORDS = ("the left picture has two red squares", "one blue circle above a green star", "a green star and two squares")


class Labelled:
    """Regions with a detector's labels, drawn from how many there are."""

    def __init__(self, plain: Any) -> None:
        self.plain, self.dim = plain, plain.dim

    def get(self, ref: Any) -> Any:
        regions = self.plain.get(ref)
        count = len(regions.boxes)
        draw = torch.Generator().manual_seed(count)
        return replace(
            regions,
            object_ids=torch.randint(OBJECTS, (count,), generator=draw).numpy(),
            attribute_ids=torch.randint(ATTRIBUTES, (count,), generator=draw).numpy(),
            object_confidences=torch.rand(count, generator=draw).numpy(),
            attribute_confidences=torch.rand(count, generator=draw).numpy(),
        )


@pytest.fixture
def module(config: CrossModalConfig, resources: Any) -> LXMERTPretraining:
    torch.manual_seed(1)
    plain = config.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0, "initial_std": 0.3})
    backbone = LXMERT(plain, replace(resources, regions=Labelled(resources.regions)))
    return LXMERTPretraining(backbone, LXMERTPretrainingConfig(objects=OBJECTS, attributes=ATTRIBUTES))


@pytest.fixture
def pairs(ref: Any) -> list[Query]:
    kinds = ["few", "some", "many", "few", "some", "many"]
    return [Query((ref(f"{kind}-{n}"),), f"{WORDS[n % 3]} {n}") for n, kind in enumerate(kinds)]


def test_labels_are_those_of_the_regions_that_count(module: LXMERTPretraining, pairs: list[Query]) -> None:
    batch = module.prepare(pairs, Random(0))
    for row, pair in enumerate(pairs):
        regions = module.backbone.load_regions(pair.images[0])
        count = len(regions.boxes)
        assert int(batch["visual_mask"][row].sum()) == count <= 6
        assert batch["obj"][row, :count].tolist() == regions.object_ids.tolist()
        assert batch["attr_confidence"][row, :count].tolist() == regions.attribute_confidences.tolist()
        assert not batch["obj_confidence"][row, count:].any()


def test_masked_regions_are_predicted_from_the_rest(module: LXMERTPretraining, pairs: list[Query]) -> None:
    batch = next(b for seed in range(9) if (b := module.prepare(pairs, Random(seed)))["chosen"].any())
    wiped = {**batch, "hidden": torch.zeros_like(batch["hidden"])}
    with torch.no_grad():
        assert not torch.allclose(module.losses(batch)["obj"], module.losses(wiped)["obj"])
        other_targets = {**batch, "features": batch["features"] + 1}
        before, after = module.losses(batch), module.losses(other_targets)
    assert before["mlm"] == after["mlm"] and before["obj"] == after["obj"] and before["feat"] != after["feat"]


def test_answers_are_drawn_by_their_worth(module: LXMERTPretraining) -> None:
    module.learn_answers(["yes", "no", "two"])
    rng, drawn = Random(0), Counter()
    for _ in range(600):
        answers = module.prepare_answers([{"two": 0.9, "no": 0.3, "unheard": 1.0}, {}, {"unheard": 1.0}], rng)[
            "answers"
        ]
        drawn[int(answers[0])] += 1
        assert answers[1:].tolist() == [NO_ANSWER, NO_ANSWER]
    assert set(drawn) == {1, 2} and drawn[2] / 600 == pytest.approx(0.75, abs=0.05)


def test_only_questions_about_their_own_image_are_answered(module: LXMERTPretraining, pairs: list[Query]) -> None:
    batch = module.prepare(pairs, Random(3))
    assert "qa" not in module.losses(batch)
    module.learn_answers(["yes", "no", "two"])
    answers = torch.tensor([0, 1, 2, NO_ANSWER, 1, 0])
    rows = [
        (row, int(answers[text]))
        for row, text in enumerate(batch["text_rows"].tolist())
        if batch["same_image"][row] and answers[text] != NO_ANSWER
    ]
    assert 0 < len(rows) < 5
    with torch.no_grad():
        losses = module.losses({**batch, "answers": answers})
        # Which rows count is what is tested here; the loss itself has its official value among the golden ones.
        logits = module.answer_head(module.fused(batch)[1]).double()  # type: ignore[misc]
        expected = sum(-logits[row].log_softmax(0)[answer].item() for row, answer in rows) / len(rows)
        nothing = module.losses({**batch, "answers": torch.full_like(answers, NO_ANSWER)})
    assert losses["qa"].item() == pytest.approx(expected, rel=1e-5)
    assert nothing["qa"].item() == 0


def test_every_parameter_learns(module: LXMERTPretraining, pairs: list[Query]) -> None:
    module.learn_answers(["yes", "no"])
    batch = module.prepare(pairs, Random(3)) | {"answers": torch.tensor([0, 1, 0, 1, 0, 1])}
    torch.stack(list(module.losses(batch).values())).sum().backward()
    idle = {name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()}
    assert all(name.endswith("key.bias") for name in idle)  # softmax does not see them


def test_a_label_without_a_head_is_named(module: LXMERTPretraining, pairs: list[Query]) -> None:
    module.config = LXMERTPretrainingConfig(objects=OBJECTS, attributes=1)
    with pytest.raises(DataError, match=r"'few-0' has a region labelled \d.*options.attributes=N"):
        module.prepare(pairs, Random(0))


def test_an_unknown_option_is_an_error(card_of: Any, resources: Any) -> None:
    with pytest.raises(VlbenchError, match=r"pretraining of lxmert-tiny: .*key_drop"):
        LXMERTPretraining.from_card(card_of("lxmert"), "tiny", resources, {"key_drop": "paper"})


def test_the_ranking_heads_row_is_the_one_for_a_match(module: LXMERTPretraining) -> None:
    handed = module.head_weights()
    assert torch.equal(handed["head.score.weight"], module.matching.weight[1:])
    assert torch.equal(handed["head.score.bias"], module.matching.bias[1:])
