"""BriVL's pretraining: its loss, its momentum towers and its queues computed anew, step by step.

test_brivl_golden.py compares three steps with numbers of the official code, in evaluation mode and with queues that are
whole batches long. Here it is in training mode, where batch norms and dropout count, and batches cross a queue's end.
"""

from __future__ import annotations

import colorsys
import copy
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef, Query
from vlbench.data.resources import Resources
from vlbench.models.brivl.pretraining import BriVLPretraining, change_colours

Make = Callable[..., BriVLPretraining]
CAPTIONS = ["two red squares", "one blue circle", "a green star above a circle", "the left picture", "a star", "red"]
MOMENTUM, TEMPERATURE = 0.9, 0.1


class Noise:
    def open(self, ref: ImageRef) -> Image.Image:
        rng = np.random.default_rng(int(ref.key.rpartition("-")[2]))
        return Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8))


@pytest.fixture
def make(card_of: Callable[[str], ModelCard], resources: Resources) -> Make:
    def made(**options: str) -> BriVLPretraining:
        torch.manual_seed(0)
        options = {"momentum": str(MOMENTUM), "temperature": str(TEMPERATURE), "queue": "10", **options}
        return BriVLPretraining.from_card(card_of("brivl"), "tiny", replace(resources, images=Noise()), options)

    return made


@pytest.fixture
def pairs() -> list[Query]:
    kinds = ["few", "some", "many", "none", "few", "some"]
    return [
        Query((ImageRef(Path("nowhere"), f"{kind}-{place}"),), caption)
        for place, (kind, caption) in enumerate(zip(kinds, CAPTIONS, strict=True))
    ]


def batches(module: BriVLPretraining, pairs: list[Query], steps: int) -> Iterator[dict[str, Tensor]]:
    """Four of the pairs each time, so that a queue of ten is not cut at a batch's end."""
    for step in range(steps):
        rng = Random(step)
        yield module.prepare(rng.sample(pairs, 4), rng)


def embedded(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return (
        network.image(batch["pixels"], batch["boxes"], batch["mask"]),
        network.text(batch["text_ids"], batch["text_mask"]),
    )


def one_way(queries: Tensor, keys: Tensor, queue: deque[Tensor]) -> Tensor:
    """The mean over queries of -log exp(q.k / t) / (exp(q.k / t) + the sum over the queue of exp(q.n / t))."""
    total = torch.zeros((), dtype=torch.float64)
    for query, key in zip(queries.double(), keys.double(), strict=True):
        right = torch.exp((query * key).sum() / TEMPERATURE)
        wrong = sum(math.e ** ((query * old.double()).sum() / TEMPERATURE) for old in queue)
        total = total - torch.log(right / (right + wrong))
    return total / len(queries)


def test_losses_towers_and_queues_step_by_step(make: Make, pairs: list[Query]) -> None:
    module = make().train()
    query = copy.deepcopy(module.backbone.network).train()
    key = copy.deepcopy(query).eval()
    image_queue = deque(module.image_queue.rows.clone(), maxlen=10)
    text_queue = deque(module.text_queue.rows.clone(), maxlen=10)
    ours = torch.optim.SGD(module.backbone.network.parameters(), lr=0.1)
    plain = torch.optim.SGD(query.parameters(), lr=0.1)
    for batch in batches(module, pairs, 6):
        found = module.losses(batch)["itc"]
        ours.zero_grad()
        found.backward()
        ours.step()
        module.after_step()

        # As the official code orders it: the momentum towers move first, then give the keys.
        with torch.no_grad():
            for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
                slow.copy_(MOMENTUM * slow + (1 - MOMENTUM) * fast)
            for slow, fast in zip(key.buffers(), query.buffers(), strict=True):
                slow.copy_(fast)
        images, texts = embedded(query, batch)
        with torch.no_grad():
            image_keys, text_keys = embedded(key, batch)
        loss = one_way(images, text_keys, text_queue) + one_way(texts, image_keys, image_queue)
        plain.zero_grad()
        loss.backward()
        plain.step()
        image_queue.extend(image_keys)
        text_queue.extend(text_keys)
        assert float(found.detach()) == pytest.approx(float(loss.detach()), rel=1e-4)
    for name, value in query.state_dict().items():
        torch.testing.assert_close(module.backbone.network.state_dict()[name], value, atol=1e-4, rtol=1e-3)
    for queue, rows in ((module.image_queue, image_queue), (module.text_queue, text_queue)):
        oldest = int(queue.pushed) % 10
        torch.testing.assert_close(queue.rows.roll(-oldest, 0), torch.stack(list(rows)), atol=1e-4, rtol=0)


def test_queues_begin_full_of_unit_vectors(make: Make) -> None:
    module = make()
    for queue in (module.image_queue, module.text_queue):
        rows = queue.filled()
        assert rows.shape == (10, module.backbone.width)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(10))
    assert not torch.equal(module.image_queue.rows, module.text_queue.rows)


def test_only_the_towers_train(make: Make, pairs: list[Query]) -> None:
    module = make().train()
    assert not any(part.training for part in module.key.modules()) and module.backbone.network.training
    before = {name: value.clone() for name, value in module.key.state_dict().items()}
    module.losses(next(batches(module, pairs, 1)))["itc"].backward()
    trained = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in module.named_parameters() if name.startswith("backbone.")}
    assert all(torch.equal(value, before[name]) for name, value in module.key.state_dict().items())
    (name, scale), *_ = module.head_weights().items()
    assert (name, float(scale)) == ("head.log_scale", pytest.approx(math.log(1 / TEMPERATURE)))


def test_nothing_is_saved_twice_and_all_that_matters_is(make: Make, pairs: list[Query]) -> None:
    module, other = make().train(), make().train()
    for batch in batches(module, pairs, 2):
        module.losses(batch)["itc"].backward()
        with torch.no_grad():
            for parameter in module.backbone.parameters():
                parameter -= 0.01 * parameter.grad
        module.after_step()
    state = module.state_dict()
    places = [value.data_ptr() for value in state.values()]
    assert len(places) == len(set(places))
    other.load_state_dict(state)
    batch = module.prepare(pairs, Random(9))
    assert torch.equal(module.eval().losses(batch)["itc"], other.eval().losses(batch)["itc"])


def test_prepare_is_chance_of_the_given_stream_alone(make: Make, pairs: list[Query]) -> None:
    plain, coloured = make(), make(augment="true")
    one, same, other = (coloured.prepare(pairs, Random(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["pixels"], other["pixels"])
    as_they_are = plain.prepare(pairs, Random(1))
    prepared = plain.backbone.prepare_images([pair.images[0] for pair in pairs])
    assert all(torch.equal(as_they_are[name], prepared[name]) for name in prepared)
    assert as_they_are["mask"].sum(1).tolist() == [3, 5, 10, 1, 3, 5]


def test_how_often_colours_are_changed_or_lost() -> None:
    rng = Random(0)
    image = Image.new("RGB", (2, 2), (200, 120, 40))
    found = [np.asarray(change_colours(image, rng))[0, 0].astype(int) for _ in range(1000)]
    grey = np.mean([colour.max() == colour.min() for colour in found])
    same = np.mean([(colour == (200, 120, 40)).all() for colour in found])
    assert grey == pytest.approx(0.2, abs=0.04)
    assert same == pytest.approx(0.2 * 0.8, abs=0.04)
    assert len({tuple(colour) for colour in found}) > 500
    # 30 degrees, moved by up to 36 to either side, and a little more where another change cuts a channel off.
    hues = [360 * colorsys.rgb_to_hsv(*colour)[0] for colour in found if colour.max() - colour.min() > 60]
    turned = [(hue - 30 + 180) % 360 - 180 for hue in hues]
    assert -60 < min(turned) < -30 and 30 < max(turned) < 60
    brightest = max(colour.max() for colour in found)
    assert 240 < brightest <= 255 and min(colour.max() for colour in found) < 150


def test_the_papers_numbers_are_the_defaults(make: Make, card_of: Callable[[str], ModelCard]) -> None:
    assert not card_of("brivl").sizes["base"].pretraining
    fields = type(make().config).model_fields
    defaults = [fields[name].default for name in ("momentum", "queue", "temperature", "augment")]
    assert defaults == [0.99, 9600, 0.07, True]


def test_a_wrong_option_is_an_error(make: Make) -> None:
    with pytest.raises(VlbenchError, match=r"pretraining of brivl-tiny: .*'queues'.*did you mean 'queue'"):
        make(queues="5")
