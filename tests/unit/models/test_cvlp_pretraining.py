"""CVLP's pretraining: what each network sees, the key network with and without drop, and the queue, step by step."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
    module, pairs = made(), pairs[:3]  # whose words the vocabulary tells apart
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
    assert all(made().prepare(twins, Random(seed))["matched"].all() for seed in range(5))  # both are of one picture


def plain_keys(key: nn.Module, batch: dict[str, Tensor], keep: dict[str, list[bool]]) -> Tensor:
    """The key network's region outputs, its layers called one after the other."""
    encoder = key.network.encoder
    text, visual = key.network.embeddings(batch["ids"]), encoder.visn_fc(batch["features"], batch["boxes"])
    words, regions = (
        torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))[:, None, None, :]
        for mask in (batch["text_mask"], batch["visual_mask"])
    )
    for place, layer in enumerate(encoder.layer):
        text = layer(text, words) if keep["language"][place] else text
    for place, layer in enumerate(encoder.r_layers):
        visual = layer(visual, regions) if keep["region"][place] else visual
    for place, layer in enumerate(encoder.x_layers):
        if keep["cross"][place]:
            text, visual = layer(text, words, visual, regions)
    out = key.head(visual[batch["visual_mask"]])
    return out / out.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("key_drop", ["none", "paper", "official"])
def test_several_updates_step_by_step(made: Any, pairs: list[Query], key_drop: str) -> None:
    """Queue, key network and loss beside a second book-keeping that shares no code with the first."""
    module = made(key_drop=key_drop)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    shadow, past = copy.deepcopy(module.key), []
    contrasts = []
    for step in range(5):
        batch = module.prepare(pairs, Random(step))
        losses = module.losses(batch)
        keep = {name: batch[name].tolist() for name in ("language", "region", "cross")}
        with torch.no_grad():
            keys = plain_keys(shadow, batch, keep)
        if len(past) >= 40:
            network, queue = module.backbone.network, torch.stack(past[-40:])
            with torch.no_grad():
                seen = network.see(batch["hidden"], batch["boxes"], batch["visual_mask"])
                read = network.read(batch["ids"], batch["text_mask"])
                _, _, visual = network.fuse(read, batch["text_mask"], seen, batch["visual_mask"])
                queries = module.region_head(visual[batch["visual_mask"]])
                queries = queries / queries.norm(dim=-1, keepdim=True)
                scores = torch.cat([(queries * keys).sum(-1, keepdim=True), queries @ queue.T], dim=1)
                logits = 10 * torch.tanh(scores / 0.07 / 10)
                expected = (logits.exp().sum(dim=1).log() - logits[:, 0]).mean()
            assert float(losses["contrast"].detach()) == pytest.approx(float(expected), abs=1e-4)
            contrasts.append(float(losses["contrast"].detach()))
        else:
            assert float(losses["contrast"].detach()) == 0.0
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        module.after_step()
        past += list(keys)
        with torch.no_grad():
            query = dict(module.backbone.network.named_parameters(prefix="network"))
            query |= dict(module.region_head.named_parameters(prefix="head"))
            for name, parameter in shadow.named_parameters():
                parameter.mul_(0.9).add_(query[name], alpha=0.1)
    assert contrasts
    for one, other in zip(module.key.parameters(), shadow.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


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
