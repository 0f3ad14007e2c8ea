"""ViLT's network: its size, positions stretched over each image's own grid; its values are in test_vilt_golden.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from vlbench.core.cards import ModelCard
from vlbench.models.vilt.modeling import ViLTConfig, ViLTNetwork

SMALL = {
    "patch": 4, "grid": 3, "short_side": 12, "long_side": 20, "layers": 2, "width": 16, "heads": 4, "inner": 32,
    "positions": 12, "dropout": 0.0, "initial_std": 0.5, "vocab_size": 50,
}  # fmt: skip


@pytest.fixture
def network() -> ViLTNetwork:
    torch.manual_seed(0)
    return ViLTNetwork(ViLTConfig.model_validate(SMALL)).eval()


def test_base_has_the_papers_parameters_and_a_third_type(card_of: Callable[[str], ModelCard]) -> None:
    card = card_of("vilt")
    values = {**card.sizes["base"].config, "vocab_size": 30522}
    with torch.device("meta"):
        base = ViLTNetwork(ViLTConfig.model_validate(values))
    count = sum(parameter.numel() for parameter in base.parameters())
    assert count == 111_595_008 + 768 == card.sizes["base"].parameters
    tables = sum(parameter.numel() for parameter in base.text.parameters())
    assert (count - tables) / 1e6 == pytest.approx(88.1, abs=0.05)


@pytest.mark.parametrize(
    ("change", "said"), [({"heads": 3}, "multiple of heads 3"), ({"long_side": 11}, "12 must be at most long_side 11")]
)
def test_numbers_that_clash(change: dict[str, int], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ViLTConfig.model_validate({**SMALL, **change})


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (2, 3), (3, 3), (5, 4), (7, 12)])
def test_positions_are_torchs_interpolation(network: ViLTNetwork, grid: tuple[int, int]) -> None:
    rows, columns = grid
    table = network.positions.weight.detach().view(3, 3, 16).permute(2, 0, 1)[None]
    expected = functional.interpolate(table, size=grid, mode="bilinear", align_corners=True)[0].flatten(1).T
    places = torch.arange(rows * columns)[None]
    with torch.no_grad():
        got = network._positions(places, torch.tensor([grid]))[0]
        some = network._positions(places[:, ::2], torch.tensor([grid]))[0]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    assert torch.equal(some, got[::2])


def test_a_patch_is_projected_as_by_the_convolution(network: ViLTNetwork) -> None:
    pixels = torch.randint(0, 256, (1, 3, 8, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    kernel = network.projection.weight.view(16, 3, 4, 4)
    with torch.no_grad():
        expected = functional.conv2d(pixels / 127.5 - 1, kernel, network.projection.bias, stride=4).flatten(2)
        patches = functional.unfold(pixels.float(), 4, stride=4).transpose(1, 2).to(torch.uint8)
        projected = network.project(patches, torch.ones(patches.shape[:2], dtype=torch.bool))
        torch.testing.assert_close(projected, expected.transpose(1, 2), atol=1e-5, rtol=0)


def test_the_second_image_is_told_from_the_first_once_it_has_learned_to(network: ViLTNetwork) -> None:
    projected, places = torch.randn(2, 9, 16), torch.arange(9).repeat(2, 1)
    projected[1] = projected[0]
    grids, kinds = torch.tensor([[3, 3], [3, 3]]), torch.tensor([0, 1])
    with torch.no_grad():
        first, second = network.place(projected, places, grids, kinds)
        assert torch.equal(first, second)  # the official code starts it as a copy
        network.types.weight[2] += 1
        first, second = network.place(projected, places, grids, kinds)
    torch.testing.assert_close(second - first, torch.ones(10, 16), atol=1e-5, rtol=0)


def test_types_are_added_to_texts_and_images(network: ViLTNetwork) -> None:
    ids, places = torch.randint(0, 50, (1, 4)), torch.arange(9)[None]
    with torch.no_grad():
        read = network.read(ids)
        placed = network.place(torch.zeros(1, 9, 16), places, torch.tensor([[3, 3]]), torch.tensor([0]))
        torch.testing.assert_close(read - network.text(ids), network.types.weight[0].expand(1, 4, 16))
        start = network.class_token + network.class_position + network.types.weight[1]
        torch.testing.assert_close(placed[0, 0], start)
        torch.testing.assert_close(placed[0, 1:], network.positions.weight + network.types.weight[1], atol=1e-6, rtol=0)
