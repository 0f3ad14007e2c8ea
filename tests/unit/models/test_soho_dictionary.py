"""The visual dictionary: the paper's update against plain loops, and what holds for both updates.

The official update is compared with numbers of the official code in test_soho_golden.py. No code of the paper's own
update was released, so it is computed here from the paper's equation.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlbench.models.soho.modeling import Dictionary, Update

ENTRIES, WIDTH = 6, 3
Numbers = NDArray[np.float64]


def nearest(cell: Numbers, entries: Numbers) -> int:
    best = 0
    for number in range(ENTRIES):
        if sum((cell - entries[number]) ** 2) < sum((cell - entries[best]) ** 2):
            best = number
    return best


class Paper:
    """d_j <- decay * d_j + (1 - decay) * the mean of the features given it."""

    def __init__(self, entries: Numbers, decay: float) -> None:
        self.entries, self.decay = entries.copy(), decay

    def update(self, given: dict[int, list[Numbers]]) -> None:
        for number, cells in given.items():
            mean = sum(cells) / len(cells)
            self.entries[number] = self.decay * self.entries[number] + (1 - self.decay) * mean


def made(update: Update, decay: float) -> Dictionary:
    torch.manual_seed(3)
    return Dictionary(ENTRIES, WIDTH, update, decay).double()


def drawn(step: int) -> tuple[Tensor, Tensor]:
    """Cells [4, 5, 3] about two places, so that some entries get several and some none, and which are real."""
    generator = torch.Generator().manual_seed(step)
    cells = torch.randn(4, 5, WIDTH, generator=generator) + 2.0 * (torch.arange(5)[:, None] % 2)
    return cells, torch.rand(4, 5, generator=generator) < 0.7


def test_lookup_and_papers_updates_step_by_step() -> None:
    """Tokens are the entries before they move, as in the paper, whose weights ours were trained with."""
    dictionary = made("paper", 0.8).float().train()
    slow = Paper(dictionary.entries.double().numpy(), 0.8)
    rarest = ENTRIES
    for step in range(6):
        cells, mask = drawn(step)
        tokens, codes = dictionary(cells, mask)
        given: dict[int, list[Numbers]] = {}
        for image in range(4):
            for place in range(5):
                cell = cells[image, place].double().numpy()
                number = nearest(cell, slow.entries)
                assert codes[image, place] == number
                np.testing.assert_allclose(tokens[image, place].numpy(), slow.entries[number], atol=1e-5)
                if mask[image, place]:
                    given.setdefault(number, []).append(cell)
        rarest = min(rarest, len(given))
        slow.update(given)
        np.testing.assert_allclose(dictionary.entries.numpy(), slow.entries, atol=1e-5)
    assert 1 < rarest < ENTRIES  # several entries, and not all, were in use


def test_papers_update_leaves_unused_entries() -> None:
    dictionary = made("paper", 0.9).float().train()
    before = dictionary.entries.clone()
    near = before[2].expand(1, 4, -1) + 0.01
    _, codes = dictionary(near, torch.ones(1, 4, dtype=torch.bool))
    assert codes.eq(2).all()
    torch.testing.assert_close(dictionary.entries[2], before[2] + 0.001)
    assert torch.equal(dictionary.entries[[0, 1, 3, 4, 5]], before[[0, 1, 3, 4, 5]])


def test_official_update_empties_entries_that_were_never_used() -> None:
    dictionary = made("official", 0.4).float().train()
    dictionary(dictionary.entries[2].expand(1, 4, -1).clone(), torch.ones(1, 4, dtype=torch.bool))
    assert dictionary.entries.any(dim=1).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("update", ["paper", "official"])
def test_evaluation_moves_nothing(update: Update) -> None:
    dictionary = made(update, 0.5).float().eval()
    before = {name: value.clone() for name, value in dictionary.state_dict().items()}
    first = dictionary(*drawn(0))
    for step in range(1, 4):
        dictionary(*drawn(step))
    again = dictionary(*drawn(0))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert before.keys() == dictionary.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in dictionary.state_dict().items())


def test_padding_moves_nothing() -> None:
    padded, cut = made("paper", 0.5).float().train(), made("paper", 0.5).float().train()
    cells, _ = drawn(0)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[:, 3:] = False
    padded(cells, mask)
    cut(cells[:, :3], mask[:, :3])
    assert torch.equal(padded.entries, cut.entries)


def test_gradient_goes_straight_through_and_not_into_entries() -> None:
    dictionary = made("paper", 0.5).float().train()
    cells, mask = drawn(0)
    cells.requires_grad_()
    weights = torch.randn(4, 5, WIDTH)
    (dictionary(cells, mask)[0] * weights).sum().backward()
    assert cells.grad is not None and torch.equal(cells.grad, weights)
    assert not dictionary.entries.requires_grad and not list(dictionary.parameters())


def test_entries_travel_with_the_weights() -> None:
    trained, fresh = made("official", 0.4).float(), made("official", 0.4).float()
    trained.train()(*drawn(0))
    fresh.load_state_dict(trained.state_dict())
    trained(*drawn(1)), fresh.train()(*drawn(1))
    assert torch.equal(trained.entries, fresh.entries)
