"""The head of a dual encoder: the loss against plain sums, its positives and its scale."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.heads.dual import DualHead


def captions(*images: str) -> list[Example[Caption]]:
    return [
        Example(str(n), Query((ImageRef(Path(image), image),), f"text {n}"), Caption(image), image)
        for n, image in enumerate(images)
    ]


def test_texts_of_one_image_have_one_number() -> None:
    assert DualHead().targets(captions("b", "a", "b", "c")).tolist() == [0, 1, 0, 2]


def test_the_scale_starts_as_clips_and_stays_below_a_hundred() -> None:
    head = DualHead()
    image = torch.tensor([[1.0, 0.0]])
    assert head(image, image).item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        head.log_scale.fill_(9.0)
    assert head(image, image).item() == pytest.approx(100.0)


def test_a_larger_loaded_scale_is_the_limit_and_is_trained() -> None:
    head, scale = DualHead(), math.log(117.3)
    head.load_state_dict({"log_scale": torch.tensor(scale)})
    image, text = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    assert head(image, text).item() == pytest.approx(0.6 * 117.3, rel=1e-5)
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3)
    for expected in (117.3, None):  # one step up is taken back, one step down is not
        head(image, text).backward() if expected is None else (-head(image, text)).backward()
        assert head.log_scale.grad is not None and abs(float(head.log_scale.grad)) > 1
        optimizer.step()
        optimizer.zero_grad()
        scale_now = head.state_dict()["log_scale"].exp().item()
        assert scale_now == pytest.approx(117.3, rel=1e-5) if expected else scale_now < 117


def test_the_saved_scale_is_never_above_the_limit() -> None:
    """So a head that is loaded again has the limit that it was trained with."""
    head, again = DualHead(), DualHead()
    with torch.no_grad():
        head.log_scale.fill_(math.log(130))
    again.load_state_dict(head.state_dict())
    assert again.log_limit == pytest.approx(math.log(100)) and again.log_scale.exp().item() == pytest.approx(100)


def test_loss_shares_the_probability_among_the_right_ones() -> None:
    logits = [[2.0, 0.5, -1.0], [0.1, 1.5, 0.3], [0.7, -0.2, 0.9]]
    images = [0, 1, 0]

    def one_way(rows: list[list[float]]) -> float:
        total = 0.0
        for query, row in enumerate(rows):
            everything = math.log(sum(map(math.exp, row)))
            right = [row[other] - everything for other in range(3) if images[other] == images[query]]
            total -= sum(right) / len(right)
        return total / len(rows)

    expected = (one_way(logits) + one_way([list(column) for column in zip(*logits, strict=True)])) / 2
    loss = DualHead().loss(torch.tensor(logits), torch.tensor(images))
    assert float(loss) == pytest.approx(expected, rel=1e-6)
