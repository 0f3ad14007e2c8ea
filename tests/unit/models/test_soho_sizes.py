"""What the sizes of SOHO's card decide: the epsilon of the neck, which cells are real, and that tiny is as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from vlbench.catalog import shipped_weights
from vlbench.core.cards import ModelCard
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.weights.loading import load_weights
from vlbench.models.soho.backbone import SOHO


def test_shipped_weights_answer_as_they_always_did(
    card_of: Callable[[str], ModelCard], resources: Resources, tiny_world: Path
) -> None:
    """The first numbers of what they gave before the neck's epsilon and the padding were options."""
    text = TextEncoder.from_path(tiny_world / "vocab.txt", 32)
    model = SOHO.from_card(card_of("soho"), "tiny", replace(resources, words=text, regions=None))
    weights = shipped_weights("soho", "tiny")
    assert weights is not None
    load_weights(nn.ModuleDict({"backbone": model}), weights)
    pixels = (torch.arange(2 * 3 * 48 * 64) * 7919 % 256).to(torch.uint8).view(2, 3, 48, 64)
    pixels[1, :, 33:] = 0
    pixels[1, :, :, 50:] = 0
    images = {"pixels": pixels, "sizes": torch.tensor([[48, 64], [33, 50]])}
    words = model.eval().prepare_texts(["two red squares", "a star above a blue circle"])
    with torch.no_grad():
        features = model.fuse(model.see(images, torch.zeros(2, dtype=torch.int64)), model.read(words))
    before = torch.tensor([[-0.344143, 0.308782, 0.710781, 1.924209], [1.276366, -2.026277, -0.189494, 1.604341]])
    torch.testing.assert_close(features.pooled[:, :4], before, atol=2e-5, rtol=0)
    before = torch.tensor([[2.313361, -2.509626, -0.448389, 0.633100], [2.039997, -2.508361, -0.425297, 0.886866]])
    torch.testing.assert_close(features.visual[1][features.visual_mask[1]][:2, :4], before, atol=2e-5, rtol=0)


def test_the_necks_epsilon_is_the_sizes(card_of: Callable[[str], ModelCard], resources: Resources) -> None:
    """The official 1e-5 but for the size whose weights were trained with another; BERT's layers keep 1e-12."""
    card = card_of("soho")
    found = {}
    for name in card.sizes:
        with torch.device("meta"):
            network = SOHO.from_card(
                card, name, replace(resources, words=TextEncoder.train(["two red squares"], 100, 16))
            ).network
        found[name] = network.neck.norm.eps
        assert network.embeddings.norm.eps == 1e-12
    assert found == {"tiny": 1e-12, "small": 1e-5, "official": 1e-5, "base": 1e-5}


@torch.no_grad()
def test_official_padding_masks_columns_of_images_higher_than_wide(
    card_of: Callable[[str], ModelCard], resources: Resources
) -> None:
    """Worked by hand for cells of 16 pixels: the code looks for cell k of n columns at k * height / n of the width.

    Of 80 x 64 pixels (height, width) that is 0, 20, 40, 60, all below 64; of 80 x 48 it is 0, 26, 53, two of which are
    below 48; of 80 x 32 it is 0, 40. An image at least as wide as high loses nothing.
    """
    card = card_of("soho")
    tiny = card.sizes["tiny"]
    tiny = tiny.model_copy(update={"config": tiny.config | {"padding": "official"}})
    network = (
        SOHO.from_card(card.model_copy(update={"sizes": {"tiny": tiny}}), "tiny", replace(resources, regions=None))
        .eval()
        .network
    )
    sizes = torch.tensor([[80, 64], [80, 48], [80, 32], [48, 80], [80, 22], [80, 80]])
    mask = network.look(torch.zeros(6, 3, 80, 80, dtype=torch.uint8), sizes).mask
    cells = [(int(one.any(1).sum()), int(one.any(0).sum())) for one in mask]
    assert cells == [(5, 4), (5, 2), (5, 1), (3, 5), (5, 1), (5, 5)]
    assert network.boxes(sizes, 80, 80).any(dim=2).sum(1).tolist() == [rows * columns for rows, columns in cells]
