"""SOHO's doors: what it makes of pictures and texts, and that rows do not feel their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vlbench.core.backbone import Features
from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.resources import Resources
from vlbench.models.soho.backbone import SOHO

SIZES = {
    "square": (48, 48),
    "wide": (70, 30),
    "tall": (17, 66),
    "dot": (1, 1),
    "strip": (20_000, 10),
    "large": (160, 96),
}
"""Widths and heights."""
TEXTS = ["two red squares", "a star", "the left picture has one blue circle above a green star"]


class Drawn:
    """Noise of the size that the picture's key names."""

    def open(self, ref: ImageRef) -> Image.Image:
        width, height = SIZES[ref.key]
        noise = np.random.default_rng(len(ref.key)).integers(0, 256, (height, width, 3), np.uint8)
        return Image.fromarray(noise)


def refs(*keys: str) -> list[ImageRef]:
    return [ImageRef(Path(key), key) for key in keys]


@pytest.fixture
def drawn(resources: Resources) -> Resources:
    return replace(resources, pictures=Drawn(), regions=None)


@pytest.fixture
def soho(card_of: Callable[[str], ModelCard], drawn: Resources) -> SOHO:
    torch.manual_seed(0)
    model = SOHO.from_card(card_of("soho"), "tiny", drawn)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def answer(model: SOHO, keys: list[str], texts: list[str]) -> Features:
    seen = model.see(model.prepare_images(refs(*keys)), torch.zeros(len(keys), dtype=torch.int64))
    return model.fuse(seen, model.read(model.prepare_texts(texts)))


def test_prepare_images_keeps_ratios_and_pads(soho: SOHO) -> None:
    images = soho.prepare_images(refs("square", "wide", "large", "tall"))
    # 160 x 96 comes down to 80 x 48, 70 x 30 up by 80 / 70, 17 x 66 up by 80 / 66.
    assert images["sizes"].tolist() == [[48, 48], [34, 80], [48, 80], [80, 21]]
    assert images["pixels"].shape == (4, 3, 80, 80) and images["pixels"].dtype == torch.uint8
    picture = np.asarray(Drawn().open(refs("square")[0]))
    assert torch.equal(images["pixels"][0, :, :48, :48], torch.from_numpy(picture.copy()).permute(2, 0, 1))
    assert not images["pixels"][1, :, 34:].any() and not images["pixels"][3, :, :, 21:].any()


def test_cells_are_masked_by_height_and_width(soho: SOHO) -> None:
    images = soho.prepare_images(refs("wide", "tall", "square"))
    mask = soho.network.look(images["pixels"], images["sizes"]).mask
    # 34 x 80 stands on as many pixels: 2 x 5 whole cells of 16. 80 x 21 on 80 x 22: 5 x 1.
    assert mask.shape == (3, 5, 5)
    assert [(int(one.any(1).sum()), int(one.any(0).sum())) for one in mask] == [(2, 5), (5, 1), (3, 3)]


def test_a_row_is_the_same_alone_padded_and_in_another_order(soho: SOHO) -> None:
    keys = ["wide", "tall", "square"]
    together = answer(soho, keys, TEXTS)
    assert together.pooled.std(0).max() > 1e-2
    backwards = answer(soho, keys[::-1], TEXTS[::-1])
    torch.testing.assert_close(backwards.pooled.flip(0), together.pooled, atol=1e-5, rtol=0)
    for row in range(3):
        alone = answer(soho, [keys[row]], [TEXTS[row]])
        torch.testing.assert_close(alone.pooled[0], together.pooled[row], atol=1e-5, rtol=0)
        words = int(alone.text_mask.sum())
        torch.testing.assert_close(alone.text[0, :words], together.text[row, :words], atol=1e-5, rtol=0)
        real, of_many = alone.visual[0, alone.visual_mask[0]], together.visual[row, together.visual_mask[row]]
        torch.testing.assert_close(real, of_many, atol=1e-5, rtol=0)


def test_features_feel_both_inputs(soho: SOHO) -> None:
    base = answer(soho, ["square"], [TEXTS[0]]).pooled
    assert (answer(soho, ["large"], [TEXTS[0]]).pooled - base).abs().max() > 1e-2
    assert (answer(soho, ["square"], [TEXTS[1]]).pooled - base).abs().max() > 1e-2


@pytest.mark.parametrize("key,size,cells", [("dot", [48, 48], 9), ("strip", [1, 80], 5)])
def test_odd_pictures_have_cells(soho: SOHO, key: str, size: list[int], cells: int) -> None:
    assert soho.prepare_images(refs(key))["sizes"].tolist() == [size]
    features = answer(soho, [key], [TEXTS[0]])
    assert features.visual_mask.sum() == cells and features.pooled.isfinite().all()


def test_empty_batches_have_shapes(soho: SOHO) -> None:
    images = soho.prepare_images([])
    assert images["pixels"].shape == (0, 3, 16, 16) and images["sizes"].shape == (0, 2)
    assert soho.prepare_texts([])["ids"].shape == (0, 0)


def test_training_moves_the_dictionary_and_evaluation_does_not(soho: SOHO) -> None:
    dictionary = soho.network.neck.dictionary
    before = dictionary.entries.clone()
    answer(soho, ["square", "large"], TEXTS[:2])
    assert torch.equal(dictionary.entries, before)
    answer(soho.train(), ["square", "large"], TEXTS[:2])
    assert not torch.equal(dictionary.entries, before)


def test_visual_parameters_are_the_convolutional_networks(soho: SOHO) -> None:
    visual = {id(parameter) for parameter in soho.visual_parameters()}
    assert {id(p) for name, p in soho.named_parameters() if name.startswith("network.resnet.")} == visual


def test_too_long_texts_are_an_error(card_of: Callable[[str], ModelCard], soho: SOHO, drawn: Resources) -> None:
    with pytest.raises(VlbenchError, match="20 tokens do not fit SOHO's 19 positions"):
        SOHO(soho.config.model_copy(update={"positions": 19}), drawn)


def test_faulty_numbers_name_the_size(card_of: Callable[[str], ModelCard], drawn: Resources) -> None:
    card = card_of("soho")
    tiny = card.sizes["tiny"]
    broken = tiny.model_copy(update={"config": {**tiny.config, "token": "gate", "layer": 3}})
    with pytest.raises(VlbenchError, match=r"size 'tiny' of model 'soho': .*token.*gate.*did you mean 'layers'"):
        SOHO.from_card(card.model_copy(update={"sizes": {"tiny": broken}}), "tiny", drawn)
