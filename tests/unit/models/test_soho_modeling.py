"""SOHO's network: its sizes, its positions, what stands for a cell."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vlbench.core.cards import ModelCard
from vlbench.models.soho.modeling import LAYOUTS, Neck, SOHOConfig, SOHONetwork, sine_positions


@pytest.fixture
def config(card_of: Callable[[str], ModelCard]) -> SOHOConfig:
    changes = {"vocab_size": 50, "entries": 20, "pooling": 2}
    return SOHOConfig.model_validate({**card_of("soho").sizes["tiny"].config, **changes})


def on_meta(card: ModelCard, size: str, words: int) -> SOHONetwork:
    with torch.device("meta"):
        return SOHONetwork(SOHOConfig.model_validate({**card.sizes[size].config, "vocab_size": words}))


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_have_the_published_parameters(card_of: Callable[[str], ModelCard]) -> None:
    """ResNets without their classifiers, BERT's embeddings and layers, and what the necks are made of."""
    card = card_of("soho")
    embeddings, layer, norms = (30_522 + 512 + 2 + 2) * 768, 7_087_872, 2 * 2 * 768
    base, official = on_meta(card, "base", 30_522), on_meta(card, "official", 30_522)
    assert (count(base.resnet), count(official.resnet)) == (42_500_160, 11_176_512)
    assert count(base) == 42_500_160 + 2048 * 768 + norms + embeddings + 12 * layer == card.sizes["base"].parameters
    gate = 768 * 769 + 2 * 1536 + 4
    assert count(official) == 11_176_512 + 512 * 768 + norms + gate + embeddings + 3 * layer
    assert count(official) == card.sizes["official"].parameters == pytest.approx(57.3e6, rel=1e-3)


def test_tiny_is_small_enough_to_ship(card_of: Callable[[str], ModelCard]) -> None:
    tiny = on_meta(card_of("soho"), "tiny", 1000)
    assert count(tiny) < 700_000
    assert sum(value.numel() for value in tiny.state_dict().values()) * 4 < 3_000_000


@pytest.mark.parametrize(
    "change,fault",
    [
        ({"heads": 3}, "multiple of heads 3"),
        ({"width": 6, "heads": 2}, "multiple of 4"),
        ({"short_side": 90}, "at most long_side 80"),
    ],
)
def test_numbers_must_agree(config: SOHOConfig, change: dict[str, int], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        SOHOConfig.model_validate({**config.model_dump(), **change})


def test_positions_against_their_formula() -> None:
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0], mask[1, :2, :3] = True, True
    got = sine_positions(mask, 8)
    assert got.shape == (2, 12, 8)
    for image, (height, width) in enumerate(((3, 4), (2, 3))):
        for row in range(height):
            for column in range(width):
                expected = []
                for place, of in ((row + 1, height), (column + 1, width)):
                    share = place / (of + 1e-6) * 2 * math.pi
                    for number in range(4):
                        wave = math.sin if number % 2 == 0 else math.cos
                        expected.append(wave(share / 10_000 ** (2 * (number // 2) / 4)))
                assert got[image, row * 4 + column].tolist() == pytest.approx(expected, abs=1e-5)


def neck(config: SOHOConfig, token: str, lookup: str = "always") -> Neck:
    torch.manual_seed(0)
    made = Neck(config.model_copy(update={"token": token, "lookup": lookup})).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return made


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(2, LAYOUTS["tiny"].channels, 4, 6, generator=torch.Generator().manual_seed(1))


MASK = torch.ones(2, 2, 3, dtype=torch.bool)


def cells_of(made: Neck, maps: Tensor) -> Tensor:
    """Largest of each 2 x 2 block, then the product with the kernel, then the norm by its running statistics (0, 1)."""
    cells = torch.zeros(2, 6, 64)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                block = maps[image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1)
                value = made.conv.weight[:, :, 0, 0] @ block.max(dim=1).values / math.sqrt(1 + 1e-5)
                cells[image, row * 3 + column] = value * made.bn.weight + made.bn.bias
    return cells


@pytest.mark.parametrize("token", ["plain", "gated", "added", "none"])
@torch.no_grad()
def test_what_stands_for_a_cell(config: SOHOConfig, maps: Tensor, token: str) -> None:
    made = neck(config, token)
    looked, cells = made.look(maps, MASK), cells_of(made, maps)
    if token == "none":
        assert looked.codes is None and not hasattr(made, "dictionary")
        torch.testing.assert_close(looked.tokens, cells, atol=1e-4, rtol=1e-4)
        return
    assert looked.codes is not None
    for image in range(2):
        for place in range(6):
            cell = cells[image, place]
            entry = made.dictionary.entries[(made.dictionary.entries - cell).norm(dim=1).argmin()]
            torch.testing.assert_close(entry, made.dictionary.entries[looked.codes[image, place]])
            torch.testing.assert_close(looked.tokens[image, place], mixed(made, entry, cell), atol=1e-3, rtol=1e-3)


def mixed(made: Neck, entry: Tensor, cell: Tensor) -> Tensor:
    if made.token == "plain":
        return entry
    projected = made.project.weight @ entry + made.project.bias
    if made.token == "added":
        return projected + cell
    scores = made.gate.weight[:, :, 0, 0] @ torch.cat([projected, cell]) / math.sqrt(1 + 1e-5)
    of_entry, of_cell = (scores * made.gate_bn.weight + made.gate_bn.bias).tolist()
    share = 1 / (1 + math.exp(of_cell - of_entry))
    return share * projected + (1 - share) * cell


@torch.no_grad()
def test_lookup_can_be_left_to_pretraining(config: SOHOConfig, maps: Tensor) -> None:
    finetuned = neck(config, "gated", "pretraining").train()
    before = finetuned.dictionary.entries.clone()
    looked = finetuned.look(maps, MASK)
    assert looked.codes is None and torch.equal(finetuned.dictionary.entries, before)
    finetuned.lookup = True
    assert finetuned.look(maps, MASK).codes is not None and not torch.equal(finetuned.dictionary.entries, before)


@torch.no_grad()
def test_places_tell_equal_cells_apart(config: SOHOConfig) -> None:
    made = neck(config, "none")
    states = made.place(torch.ones(2, 6, 64), MASK)
    assert torch.pdist(states[0]).min() > 1e-2
    torch.testing.assert_close(states[0], states[1])
