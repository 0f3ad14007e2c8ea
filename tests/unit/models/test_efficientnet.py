"""EfficientNet against transformers', and its convolutions where sides are odd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vlbench.models.layers.efficientnet import B0, B5, EfficientNet, Layout, SameConv2d, Stage

SMALL = Layout(8, (Stage(2, 3, 1, 1, 8), Stage(2, 5, 2, 6, 16), Stage(1, 3, 2, 6, 24)), 32)


@pytest.mark.parametrize("layout,parameters", [(B0, 5_288_548 - 1_281_000), (B5, 30_389_784 - 2_049_000)])
def test_published_sizes_without_their_classifiers(layout: Layout, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in EfficientNet(layout).parameters()) == parameters


@pytest.mark.parametrize("kernel", [3, 5])
def test_odd_sides_are_padded_evenly(kernel: int) -> None:
    ours = SameConv2d(4, 6, kernel, 2)
    plain = nn.Conv2d(4, 6, kernel, 2, kernel // 2, bias=False)
    plain.load_state_dict(ours.state_dict())
    maps = torch.randn(2, 4, 13, 9)
    torch.testing.assert_close(ours(maps), plain(maps))


@pytest.mark.parametrize("kernel,stride,side", [(3, 2, 8), (5, 2, 8), (5, 1, 3), (3, 2, 1), (5, 2, 3), (1, 1, 4)])
def test_sides_are_rounded_up(kernel: int, stride: int, side: int) -> None:
    assert SameConv2d(2, 3, kernel, stride)(torch.zeros(1, 2, side, side)).shape[2:] == (-(-side // stride),) * 2


def names(place: int, of: str, expanded: bool) -> dict[str, str]:
    """transformers' names of a block's parts -> ours."""
    first = 1 if expanded else 0
    parts = {
        "depthwise_conv.depthwise_conv": "conv_dw",
        "depthwise_conv.depthwise_norm": f"bn{first + 1}",
        "squeeze_excite.reduce": "se.conv_reduce",
        "squeeze_excite.expand": "se.conv_expand",
        "projection.project_conv": "conv_pwl" if expanded else "conv_pw",
        "projection.project_bn": f"bn{first + 2}",
    }
    if expanded:
        parts |= {"expansion.expand_conv": "conv_pw", "expansion.expand_bn": "bn1"}
    return {f"encoder.blocks.{place}.{part}": f"blocks.{of}.{ours}" for part, ours in parts.items()}


def test_the_map_is_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    other = transformers.EfficientNetModel(
        transformers.EfficientNetConfig(
            image_size=32,
            width_coefficient=1.0,
            depth_coefficient=1.0,
            in_channels=[32, 8, 16],
            out_channels=[8, 16, 24],
            kernel_sizes=[3, 5, 3],
            strides=[1, 2, 2],
            num_block_repeats=[2, 2, 1],
            expand_ratios=[1, 6, 6],
            hidden_dim=1280,
            batch_norm_eps=1e-3,
        )
    ).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in [*other.parameters(), *other.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if tensor.ndim == 1 else tensor.normal_(std=0.3)
    known = {"embeddings.convolution": "conv_stem", "embeddings.batchnorm": "bn1"}
    known |= {"encoder.top_conv": "conv_head", "encoder.top_bn": "bn2"}
    for place, of in enumerate(["0.0", "0.1", "1.0", "1.1", "2.0"]):
        known |= names(place, of, expanded=place > 1)
    state: dict[str, Tensor] = {}
    for name, value in other.state_dict().items():
        part, _, kind = name.rpartition(".")
        state[f"{known[part]}.{kind}"] = value
    ours = EfficientNet(Layout(32, SMALL.stages, 1280)).eval()
    ours.load_state_dict(state)
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = other(pixels).last_hidden_state
        found = ours(pixels)
    assert found.shape == (3, 1280, 4, 4) and found.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_frozen_keeps_weights_and_statistics() -> None:
    network = EfficientNet(SMALL, frozen=1).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(4, 3, 16, 16)).sum().backward()
    frozen = ("conv_stem.", "bn1.", "conv_head.", "bn2.", "blocks.0.")
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name
    for name, value in network.state_dict().items():
        if "running_mean" in name:
            assert torch.equal(value, before[name]) == name.startswith(frozen), name
    assert all(parameter.requires_grad for parameter in EfficientNet(SMALL).parameters())
