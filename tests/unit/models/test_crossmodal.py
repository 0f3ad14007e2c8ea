"""The network of LXMERT and CVLP: its size and its first weights; its values are in test_crossmodal_golden.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from vlbench.core.cards import ModelCard
from vlbench.models.layers.crossmodal import CrossModalConfig, CrossModalNetwork


def on_meta(card: ModelCard, size: str) -> CrossModalNetwork:
    values = {**card.sizes[size].config, "vocab_size": 30522, "region_dim": 2048}
    with torch.device("meta"):
        return CrossModalNetwork(CrossModalConfig.model_validate(values))


def test_base_has_the_papers_parameters(card_of: Callable[[str], ModelCard]) -> None:
    card = card_of("cvlp")
    network = on_meta(card, "base")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 207_936_768 == card.sizes["base"].parameters
    per_layer = {
        name: sum(parameter.numel() for parameter in layers[0].parameters())
        for name, layers in (("layer", network.encoder.layer), ("x", network.encoder.x_layers))
    }
    assert per_layer == {"layer": 7_087_872, "x": 16_539_648}


def test_small_keeps_the_papers_depth(card_of: Callable[[str], ModelCard]) -> None:
    encoder = on_meta(card_of("cvlp"), "small").encoder
    assert (len(encoder.layer), len(encoder.r_layers), len(encoder.x_layers)) == (9, 5, 5)


def test_heads_must_divide_the_width(config: CrossModalConfig) -> None:
    with pytest.raises(ValidationError, match="multiple of heads 3"):
        CrossModalConfig.model_validate({**config.model_dump(), "heads": 3})


def test_initialisation_is_berts(config: CrossModalConfig) -> None:
    torch.manual_seed(0)
    network = CrossModalNetwork(config.model_copy(update={"width": 256, "inner": 1024}))
    layer = network.encoder.layer[0]
    assert layer.feed_forward.inner.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.embeddings.position_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not layer.feed_forward.inner.bias.any()
    assert layer.attention.norm.weight.eq(1).all() and not layer.attention.norm.bias.any()


@pytest.mark.parametrize(("size", "trained"), [("tiny", True), ("small", False), ("base", False)])
@pytest.mark.parametrize("model", ["lxmert", "cvlp"])
def test_the_first_rows_of_the_tables_are_frozen_but_in_tiny(
    card_of: Callable[[str], ModelCard], config: CrossModalConfig, model: str, size: str, trained: bool
) -> None:
    rows = card_of(model).sizes[size].config.get("first_rows", CrossModalConfig.model_fields["first_rows"].default)
    network = CrossModalNetwork(config.model_copy(update={"first_rows": rows}))
    assert bool(network.embeddings.position_embeddings.weight[0].any()), "frozen rows start at random too"
    network.read(torch.tensor([[0, 1, 0]]), torch.ones(1, 3, dtype=torch.bool)).pow(3).sum().backward()
    tables = (getattr(network.embeddings, f"{name}_embeddings") for name in ("word", "position", "token_type"))
    assert [bool(table.weight.grad[0].any()) for table in tables] == [trained] * 3
    assert bool(network.embeddings.position_embeddings.weight.grad[1].any())


def test_pooled_trains_all_but_the_last_layers_visual_side(config: CrossModalConfig) -> None:
    network = CrossModalNetwork(config)
    words, regions = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    seen = network.see(torch.randn(2, 3, config.region_dim), torch.rand(2, 3, 4), regions)
    read = network.read(torch.randint(0, config.vocab_size, (2, 5)), words)
    network.fuse(read, words, seen, regions)[0].sum().backward()
    still = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    # The last layer's visual states are handed on, but [CLS] has attended to the regions by then.
    assert still == {name for name, _ in network.named_parameters() if name.startswith("encoder.x_layers.1.visn_")}
    # A key's bias shifts all scores of a query alike, which softmax does not see: its gradient is 0 by nature.
    flat = {name for name, value in network.named_parameters() if value.grad is not None and not value.grad.any()}
    assert all(name.endswith("key.bias") for name in flat)
