"""CVLP's pretraining: what each network sees, the key network with and without drop, and the queue."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Query
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.cvlp.pretraining import CVLPPretraining, CVLPPretrainingConfig, kept_layers
from vlbench.models.layers.crossmodal import CrossModalConfig
from vlbench.objectives.mlm import IGNORED

WORDS = ("the left picture has two red squares", "one blue circle above a green star", "a green star and two squares")


@pytest.fixture
def pairs(ref: Any) -> list[Query]:
    return [
        Query((ref(f"{kind}-{n}"),), f"{WORDS[n % 3]} {n}")
        for n, kind in enumerate(["few", "some", "many", "few", "some", "many"])
    ]


@pytest.fixture
def made(config: CrossModalConfig, resources: Any) -> Any:
    def make(**changes: object) -> CVLPPretraining:
        torch.manual_seed(1)
        values = {"key_drop": "none", "momentum": 0.9, "queue": 40, **changes}
        plain = config.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0, "initial_std": 0.3})
        return CVLPPretraining(CVLP(plain, resources), CVLPPretrainingConfig.model_validate(values))

    return make


def test_the_key_starts_as_the_query_and_nothing_is_saved_twice(made: Any) -> None:
    module = made()
    own, key = module.backbone.network.state_dict(), module.key.network.state_dict()
    assert all(torch.equal(own[name], key[name]) for name in own)
    assert not any(parameter.requires_grad for parameter in module.key.parameters())
    places = [value.data_ptr() for value in module.state_dict().values() if value.numel()]
    assert len(places) == len(set(places))


def test_what_ran_is_told(made: Any) -> None:
    assert made(key_drop="paper").settings() == {
        "key_drop": "paper", "momentum": 0.9, "queue": 40, "temperature": 0.07, "clip": 10.0,
    }  # fmt: skip


def test_the_key_never_drops_out(made: Any) -> None:
    module = made().train()
    assert module.backbone.training and not any(part.training for part in module.key.modules())
    assert module.eval().training is False


def test_the_key_sees_hidden_words_and_clean_regions(made: Any, pairs: list[Query]) -> None:
    module = made()
    found = False
    for seed in range(20):
        batch = module.prepare(pairs, Random(seed))
        hidden = (batch["hidden"] != batch["features"]).any(dim=-1)
        assert not (hidden & ~batch["visual_mask"]).any()
        clean, seen = batch["ids"].clone(), batch["ids"]
        chosen = batch["labels"] != IGNORED
        clean[chosen] = batch["labels"][chosen]
        with torch.no_grad():
            before = module._key_states(batch)
            assert torch.equal(before, module._key_states({**batch, "hidden": torch.zeros_like(batch["hidden"])}))
            if bool((clean != seen).any()):
                assert not torch.allclose(before, module._key_states({**batch, "ids": clean}))
            assert (
                not torch.allclose(before, module._key_states({**batch, "features": batch["hidden"]}))
                or not hidden.any()
            )
        found = found or bool(hidden.any() and (clean != seen).any())
    assert found


def test_mismatched_texts_are_not_their_own(made: Any, pairs: list[Query]) -> None:
    module, pairs = made(), pairs[:3]  # whose words the vocabulary distinguishes
    own = module.backbone.prepare_texts([pair.text for pair in pairs])["ids"]
    both = set()
    for seed in range(10):
        batch = module.prepare(pairs, Random(seed))
        whole = batch["ids"].clone()
        chosen = batch["labels"] != IGNORED
        whole[chosen] = batch["labels"][chosen]
        for row, matched in enumerate(batch["matched"].tolist()):
            assert torch.equal(whole[row], own[row][: whole.shape[1]]) == matched
            both.add(matched)
    assert both == {True, False}
    twins = [pairs[0], Query(pairs[0].images, pairs[1].text)]
    assert all(made().prepare(twins, Random(seed))["matched"].all() for seed in range(5))  # both are of one image


def test_layers_that_do_not_run_do_not_count(made: Any, pairs: list[Query]) -> None:
    """The keys with some layers left out are the same whatever those layers hold, and others with any other layer's."""
    module = made()
    encoder = module.key.network.encoder
    batch = module.prepare(pairs, Random(0))
    for name, layers in (("language", encoder.layer), ("region", encoder.r_layers), ("cross", encoder.x_layers)):
        for place, layer in enumerate(layers):
            kept = torch.ones(len(layers), dtype=torch.bool)
            without = {**batch, name: kept.index_fill(0, torch.tensor([place]), False)}
            with torch.no_grad():
                before = module._key_states(without), module._key_states({**batch, name: kept})
                (layer.visual_attention if name == "cross" else layer.attention).norm.weight.neg_()
                after = module._key_states(without), module._key_states({**batch, name: kept})
            assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1])


def test_the_contrast_waits_for_a_full_queue(made: Any, pairs: list[Query]) -> None:
    """40 keys; its values, and the key network that follows, are in test_crossmodal_golden.py."""
    module = made()
    filled = 0
    for step in range(4):
        batch = module.prepare(pairs, Random(step))
        assert (float(module.losses(batch)["contrast"].detach()) > 0) == (filled >= 40)
        module.after_step()
        filled += int(batch["visual_mask"].sum())
    assert filled > 40


def test_which_layers_the_key_network_runs() -> None:
    assert kept_layers(5, "none", Random(0)) == [True] * 5
    official = [kept_layers(9, "official", Random(seed)) for seed in range(200)]
    assert all(all(kept[place] for place in (0, 2, 4, 6, 8)) for kept in official)
    shares = [sum(kept[place] for kept in official) / 200 for place in (1, 3, 5, 7)]
    assert shares == pytest.approx([0.5] * 4, abs=0.12)
    assert all(kept_layers(4, "official", Random(seed))[3] for seed in range(20))
    paper = [kept_layers(5, "paper", Random(seed)) for seed in range(200)]
    assert [sum(kept[place] for kept in paper) / 200 for place in range(5)] == pytest.approx([0.5] * 5, abs=0.12)


def test_gradients_reach_what_is_trained(made: Any, pairs: list[Query]) -> None:
    module = made(queue=4)
    module.losses(module.prepare(pairs, Random(0)))
    module.after_step()
    torch.stack(list(module.losses(module.prepare(pairs, Random(1))).values())).sum().backward()
    without = [
        name for name, parameter in module.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []


def test_options_are_checked(card_of: Any, resources: Any) -> None:
    with pytest.raises(VlbenchError, match=r"pretraining of cvlp-tiny: .*key_drop"):
        CVLPPretraining.from_card(card_of("cvlp"), "tiny", resources, {"key_drop": "sometimes"})
    with pytest.raises(VlbenchError, match="unknown key 'key_dorp', did you mean 'key_drop'"):
        CVLPPretraining.from_card(card_of("cvlp"), "tiny", resources, {"key_dorp": "none"})
    module = CVLPPretraining.from_card(card_of("cvlp"), "tiny", resources, {"key_drop": "paper", "momentum": "0.5"})
    assert (module.config.key_drop, module.config.momentum, module.config.queue) == ("paper", 0.5, 4096)
