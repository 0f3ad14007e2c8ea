"""The preprocessing of CVLP and LXMERT; rows do not depend on their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vlbench.core.backbone import Features
from vlbench.core.cards import ModelCard
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.resources import Resources
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.layers.crossmodal import CrossModalConfig

Ref = Callable[[str], ImageRef]

TEXTS = ["two red squares", "a star", "the left picture has one blue circle above a green star"]
KEYS = ["few-a", "many-b", "some-c"]


def answer(model: CVLP, refs: list[ImageRef], texts: list[str]) -> Features:
    with torch.no_grad():
        seen = model.see(model.prepare_images(refs), torch.zeros(len(refs), dtype=torch.int64))
        return model.fuse(seen, model.read(model.prepare_texts(texts)))


def test_prepare_images_scales_pads_and_cuts(cvlp: CVLP, resources: Resources, ref: Ref) -> None:
    images = cvlp.prepare_images([ref("few-a"), ref("many-b")])
    assert images["features"].shape == (2, 6, 5)
    assert images["mask"].tolist() == [[True, True, False, False, False, False], [True] * 6]
    assert resources.regions is not None
    regions = resources.regions.get(ref("many-b"))
    x1, y1, x2, y2 = regions.boxes[5].tolist()
    assert images["boxes"][1, 5].tolist() == pytest.approx([x1 / 200, y1 / 50, x2 / 200, y2 / 50])
    assert images["features"][1, 5].tolist() == pytest.approx(regions.features[5].tolist())
    assert not images["features"][0, 2:].any() and not images["boxes"][0, 2:].any()


def test_prepare_texts_cuts_to_the_longest(cvlp: CVLP) -> None:
    texts = cvlp.prepare_texts(TEXTS)
    lengths = texts["mask"].sum(1)
    assert texts["ids"].shape == texts["mask"].shape == (3, int(lengths.max()))
    assert len(set(lengths.tolist())) == 3 and texts["ids"].dtype == torch.int64


def test_empty_batches_have_shapes(cvlp: CVLP) -> None:
    assert cvlp.prepare_images([])["features"].shape == (0, 0, 5)
    assert cvlp.prepare_texts([])["ids"].shape == (0, 0)


def test_a_row_is_the_same_alone_padded_and_in_another_order(cvlp: CVLP, ref: Ref) -> None:
    refs = [ref(key) for key in KEYS]
    together = answer(cvlp, refs, TEXTS)
    assert together.pooled.std(0).max() > 1e-2
    backwards = answer(cvlp, refs[::-1], TEXTS[::-1])
    torch.testing.assert_close(backwards.pooled.flip(0), together.pooled, atol=1e-5, rtol=0)
    for row in range(3):
        alone = answer(cvlp, [refs[row]], [TEXTS[row]])
        torch.testing.assert_close(alone.pooled[0], together.pooled[row], atol=1e-5, rtol=0)
        words, regions = int(alone.text_mask.sum()), int(alone.visual_mask.sum())
        torch.testing.assert_close(alone.text[0, :words], together.text[row, :words], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.visual[0, :regions], together.visual[row, :regions], atol=1e-5, rtol=0)


def test_features_feel_both_inputs(cvlp: CVLP, ref: Ref) -> None:
    base = answer(cvlp, [ref("some-a")], [TEXTS[0]]).pooled
    assert (answer(cvlp, [ref("some-b")], [TEXTS[0]]).pooled - base).abs().max() > 1e-2
    assert (answer(cvlp, [ref("some-a")], [TEXTS[1]]).pooled - base).abs().max() > 1e-2


def test_from_card_takes_the_datas_sizes(
    card_of: Callable[[str], ModelCard], resources: Resources, config: CrossModalConfig
) -> None:
    model = CVLP.from_card(card_of("cvlp"), "tiny", resources)
    assert (model.width, model.config.region_dim, model.config.vocab_size) == (64, 5, config.vocab_size)


def test_faulty_numbers_name_the_size(card_of: Callable[[str], ModelCard], resources: Resources) -> None:
    card = card_of("cvlp")
    tiny = card.sizes["tiny"]
    broken = tiny.model_copy(update={"config": {**tiny.config, "width": "wide", "layers": 3}})
    with pytest.raises(VlbenchError, match=r"size 'tiny' of model 'cvlp': .*width.*layers"):
        CVLP.from_card(card.model_copy(update={"sizes": {"tiny": broken}}), "tiny", resources)


def test_no_regions_is_an_error(card_of: Callable[[str], ModelCard], resources: Resources) -> None:
    with pytest.raises(VlbenchError, match="was given none"):
        CVLP.from_card(card_of("cvlp"), "tiny", replace(resources, regions=None))


def test_too_long_texts_are_an_error(config: CrossModalConfig, resources: Resources) -> None:
    with pytest.raises(VlbenchError, match="20 tokens do not fit CVLP's 19 positions"):
        CVLP(config.model_copy(update={"positions": 19}), resources)


def test_a_image_without_regions_is_named(cvlp: CVLP, ref: Ref) -> None:
    with pytest.raises(DataError, match="'none-x' has 0 regions"):
        cvlp.prepare_images([ref("few-a"), ref("none-x")])
