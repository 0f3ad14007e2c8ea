"""ViLT's preprocessing: patches of images of several sizes, RandAugment, and the types of two images."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlbench.core.backbone import Augmenting
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Resources
from vlbench.models.vilt.backbone import ViLT


@pytest.fixture
def model(card_of: Any, resources: Any) -> ViLT:
    torch.manual_seed(0)
    return ViLT.from_card(card_of("vilt"), "tiny", Resources(resources.text, ImageFiles(), None)).eval()


@pytest.fixture
def refs(tmp_path: Path) -> list[ImageRef]:
    found = []
    for name, size in {"square": (48, 48), "wide": (96, 48), "small": (10, 10), "tall": (20, 400)}.items():
        path = tmp_path / f"{name}.png"
        draw = np.random.default_rng(len(name))
        Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        found.append(ImageRef(path, name))
    return found


def test_images_are_whole_patches(model: ViLT, refs: list[ImageRef]) -> None:
    images = model.prepare_images(refs)
    assert images["grids"].tolist() == [[3, 3], [2, 5], [3, 3], [5, 1]]
    assert images["mask"].sum(dim=1).tolist() == [9, 10, 9, 5]
    assert images["patches"].shape == (4, 10, 768) and images["patches"].dtype == torch.uint8
    pixels = np.asarray(Image.open(refs[0].path))
    assert images["patches"][0, 4].view(3, 16, 16)[2, 3, 7] == pixels[16 + 3, 16 + 7, 2]


def test_what_is_seen_has_a_class_token_first(model: ViLT, refs: list[ImageRef]) -> None:
    with torch.no_grad():
        seen = model.see(model.prepare_images(refs), torch.zeros(4, dtype=torch.int64))
    assert seen.states.shape == (4, 11, 64) and seen.mask.sum(dim=1).tolist() == [10, 11, 10, 6]
    assert torch.equal(seen.states[0, 0], seen.states[3, 0])


def test_more_than_two_images_share_the_last_type(model: ViLT, refs: list[ImageRef]) -> None:
    with torch.no_grad():
        model.network.types.weight.normal_()
        first, second, third = model.see(model.prepare_images(refs[:1] * 3), torch.tensor([0, 1, 2])).states
    assert torch.equal(second, third) and not torch.equal(first, second)


def test_no_images_have_a_shape_too(model: ViLT) -> None:
    seen = model.see(model.prepare_images([]), torch.zeros(0, dtype=torch.int64))
    assert seen.states.shape == (0, 1, 64) and seen.mask.shape == (0, 1)


def test_training_images_change_by_chance(model: ViLT, refs: list[ImageRef]) -> None:
    assert isinstance(model, Augmenting)
    plain = model.prepare_images(refs)["patches"]
    one, again, other = (model.augmented(refs, Random(seed))["patches"] for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one, plain)


def test_too_long_texts_are_an_error(card_of: Any, resources: Any) -> None:
    card = card_of("vilt")
    tiny = card.sizes["tiny"]
    short = card.model_copy(
        update={"sizes": {"tiny": tiny.model_copy(update={"config": {**tiny.config, "positions": 8}})}}
    )
    with pytest.raises(VlbenchError, match="20 tokens do not fit ViLT's 8 positions"):
        ViLT.from_card(short, "tiny", resources)
