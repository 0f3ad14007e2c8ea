"""SOHO's preprocessing and forward pass; rows do not depend on their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vlbench.core.backbone import Features, MultiScale
from vlbench.core.cards import HeadLayout, ModelCard, ScaleRange
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.data.resources import Resources
from vlbench.engine.learner import Learner
from vlbench.engine.training.micro_batches import shares, training_batches
from vlbench.heads.classify import ClassifyHead
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
    """Noise of the size that the image's key names."""

    def open(self, ref: ImageRef) -> Image.Image:
        width, height = SIZES[ref.key]
        noise = np.random.default_rng(len(ref.key)).integers(0, 256, (height, width, 3), np.uint8)
        return Image.fromarray(noise)


def refs(*keys: str) -> list[ImageRef]:
    return [ImageRef(Path(key), key) for key in keys]


@pytest.fixture
def drawn(resources: Resources) -> Resources:
    return replace(resources, images=Drawn(), regions=None)


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
    image = np.asarray(Drawn().open(refs("square")[0]))
    assert torch.equal(images["pixels"][0, :, :48, :48], torch.from_numpy(image.copy()).permute(2, 0, 1))
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
def test_odd_images_have_cells(soho: SOHO, key: str, size: list[int], cells: int) -> None:
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


def test_training_images_have_random_sizes_of_their_own(soho: SOHO) -> None:
    """16 to 32 pixels on the short side; 70 x 30 and 17 x 66 meet the limit of 60 on the long one first."""
    assert isinstance(soho, MultiScale)
    scales, keys = ScaleRange(16, 32, 60), ("square", "wide", "tall", "large")
    drawn = [soho.rescaled(refs(*keys), Random(seed), scales)["sizes"].tolist() for seed in range(200)]
    assert drawn[0] == soho.rescaled(refs(*keys), Random(0), scales)["sizes"].tolist() != drawn[1]
    short = [[min(sizes[row]) for sizes in drawn] for row in range(4)]
    assert set(short[0]) == set(range(16, 33)) and {tuple(sizes[0]) for sizes in drawn} == {
        (n, n) for n in range(16, 33)
    }
    assert set(short[1]) == set(range(16, 27)) and all(max(sizes[1]) <= 60 for sizes in drawn)  # 60 * 30 / 70 = 25.7
    assert {tuple(sizes[2]) for sizes in drawn} == {(60, 15)}  # 60 * 17 / 66 = 15.5, an even number of halves
    assert set(short[3]) == set(range(16, 33))
    assert any(sizes[0][0] != sizes[3][0] for sizes in drawn)


def test_the_random_size_depends_on_no_neighbour(soho: SOHO) -> None:
    scales = ScaleRange(16, 32, 60)
    together = soho.rescaled(refs("square", "wide", "large"), Random(5), scales)
    for row, key in enumerate(("square", "wide", "large")):
        alone = soho.rescaled(refs(key), Random(5), scales)
        height, width = alone["sizes"][0].tolist()
        assert together["sizes"][row].tolist() == [height, width]
        assert torch.equal(together["pixels"][row, :, :height, :width], alone["pixels"][0, :, :height, :width])


def test_random_sizes_do_not_depend_on_how_a_step_is_cut(soho: SOHO) -> None:
    examples = [Example(key, Query((ImageRef(Path(key), key),), "a star"), Label("True"), key) for key in SIZES]

    learner = Learner(soho, ClassifyHead(soho.width, ("True", "False"), HeadLayout()))

    def sizes(step: int, accumulation: int) -> dict[str, list[int]]:
        parts = shares(range(len(examples)), step, accumulation, 0, 1)
        batches = training_batches(examples, parts, learner, "0/negatives", False, ScaleRange(16, 32, 60))
        return {
            name: size
            for batch in (batches[number] for number in range(len(parts)))
            for name, size in zip(batch.ids, batch.images["sizes"].tolist(), strict=True)
        }

    assert sizes(3, 1) == sizes(3, 2) == sizes(3, 6) != sizes(4, 1)


OFFICIAL = {
    "optimizer": "adamw", "lr": 1e-4, "visual_lr": 1e-2, "weight_decay": 0.01, "decay_biases": True,
    "warmup_steps": 1000, "warmup_from": 1 / 3, "milestones": (12 / 20, 16 / 20), "clip": 4.0, "epochs": 20,
    "batch_size": 32 * 8 * 2, "accumulation": 2, "evaluations": 5, "short_side": (400, 800), "long_side": 1333,
    "train_splits": ("train", "val"),
}  # fmt: skip
"""The released VQA configuration: 8 GPUs with 32 images each and an update every second iteration."""
TINY = {
    "optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.01, "warmup": 0.1, "betas": (0.9, 0.98), "clip": 1.0,
    "ema": 0.99, "epochs": 20, "steps": 600, "batch_size": 64, "accumulation": 2, "evaluations": 3,
    "batches": "shuffled",
}  # fmt: skip
"""As it was before there were random sizes."""


@pytest.mark.parametrize(("size", "expected"), [("official", OFFICIAL), ("tiny", TINY)])
def test_the_recipe_of_the_release_and_of_tiny(
    size: str, expected: dict[str, object], card_of: Callable[[str], ModelCard]
) -> None:
    assert card_of("soho").recipe("vqa2", size).model_dump(exclude_none=True) == expected
