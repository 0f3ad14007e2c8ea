"""The fake model: repeatable, sensitive to both inputs, trainable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vlbench.core.cards import ModelCard
from vlbench.core.examples import ImageRef
from vlbench.data.resources import Resources
from vlbench.models.fake.backbone import Fake

Ref = Callable[[str], ImageRef]

GOLDEN = -0.09380297549068928


@pytest.fixture
def fake(card_of: Callable[[str], ModelCard], resources: Resources) -> Fake:
    return Fake.from_card(card_of("fake"), "tiny", resources)


def pooled(model: Fake, refs: list[ImageRef], texts: list[str]) -> torch.Tensor:
    seen = model.see(model.prepare_images(refs), torch.zeros(len(refs), dtype=torch.int64))
    return model.fuse(seen, model.read(model.prepare_texts(texts))).pooled


def test_the_same_everywhere(fake: Fake, ref: Ref) -> None:
    torch.manual_seed(1)
    features = pooled(fake, [ref("a.png"), ref("b.png")], ["red", "blue"])
    torch.manual_seed(2)
    assert torch.equal(pooled(Fake(), [ref("b.png"), ref("a.png")], ["blue", "red"]).flip(0), features)
    # First number of blake2b("a.png") times that of blake2b("red"), as 16-bit integers over 32768.
    assert features.shape == (2, 32) and features[0, 0].item() == pytest.approx(GOLDEN, abs=1e-7)


def test_both_inputs_count(fake: Fake, ref: Ref) -> None:
    features = pooled(fake, [ref("a"), ref("a"), ref("b")], ["red", "blue", "red"])
    assert not torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])


def test_every_parameter_trains(fake: Fake, ref: Ref) -> None:
    pooled(fake, [ref("a")], ["red"]).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in fake.parameters())
