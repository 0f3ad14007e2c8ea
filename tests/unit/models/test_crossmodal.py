"""The network of LXMERT and CVLP: its size, its equations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from vlbench.core.cards import ModelCard
from vlbench.models.layers.crossmodal import CrossLayer, CrossModalConfig, CrossModalNetwork

Weights = dict[str, NDArray[np.float64]]


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


def norm(states: NDArray[np.float64], weights: Weights, name: str) -> NDArray[np.float64]:
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(states: NDArray[np.float64], weights: Weights, name: str) -> NDArray[np.float64]:
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attend(
    states: NDArray[np.float64], context: NDArray[np.float64], real: list[int], weights: Weights, name: str, heads: int
) -> NDArray[np.float64]:
    """One row at a time, one head at a time, one token at a time; `real` lists the tokens that may be looked at."""
    size = states.shape[-1] // heads
    query = linear(states, weights, f"{name}.query")
    key, value = linear(context, weights, f"{name}.key"), linear(context, weights, f"{name}.value")
    mixed = np.zeros_like(query)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for token in range(len(states)):
            scores = [float(query[token, part] @ key[other, part]) / math.sqrt(size) for other in real]
            exponents = [math.exp(score - max(scores)) for score in scores]
            for share, other in zip(exponents, real, strict=True):
                mixed[token, part] += share / sum(exponents) * value[other, part]
    return linear(mixed, weights, f"{name}.output")


def feed_forward(states: NDArray[np.float64], weights: Weights, name: str) -> NDArray[np.float64]:
    inner = linear(states, weights, f"{name}.inner")
    gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))
    return norm(states + linear(gelu(inner), weights, f"{name}.outer"), weights, f"{name}.norm")


def test_cross_layer_against_its_equations(config: CrossModalConfig) -> None:
    torch.manual_seed(0)
    layer = CrossLayer(config).eval().double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    weights = {name: value.numpy() for name, value in layer.state_dict().items()}
    text, visual = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, 4, 16, dtype=torch.float64)
    words, boxes = (
        torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]) == 1,
        torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]) == 1,
    )
    with torch.no_grad():
        got = layer(text, words[:, None, None], visual, boxes[:, None, None])
    for row in range(2):
        real = {"lang": words[row].nonzero().flatten().tolist(), "visn": boxes[row].nonzero().flatten().tolist()}
        before = {"lang": text[row].numpy(), "visn": visual[row].numpy()}
        for index, (side, other) in enumerate((("lang", "visn"), ("visn", "lang"))):
            crossed = attend(before[side], before[other], real[other], weights, "visual_attention.attention", 4)
            states = norm(before[side] + crossed, weights, "visual_attention.norm")
            itself = attend(states, states, real[side], weights, f"{side}_self_att.attention", 4)
            states = norm(states + itself, weights, f"{side}_self_att.norm")
            expected = feed_forward(states, weights, f"{side}_feed_forward")
            np.testing.assert_allclose(got[index][row].numpy(), expected, atol=1e-10)


def test_pooled_trains_all_but_the_last_layers_visual_side(config: CrossModalConfig) -> None:
    network = CrossModalNetwork(config)
    words, regions = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    seen = network.see(torch.randn(2, 3, config.region_dim), torch.rand(2, 3, 4), regions)
    read = network.read(torch.randint(0, config.vocab_size, (2, 5)), words)
    network.fuse(read, words, seen, regions)[0].sum().backward()
    still = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    # The last layer's visual states are handed on, but [CLS] has already looked at the regions by then.
    assert still == {name for name, _ in network.named_parameters() if name.startswith("encoder.x_layers.1.visn_")}
    # A key's bias shifts all scores of a query alike, which softmax does not see: its gradient is 0 by nature.
    flat = {name for name, value in network.named_parameters() if value.grad is not None and not value.grad.any()}
    assert all(name.endswith("key.bias") for name in flat)
