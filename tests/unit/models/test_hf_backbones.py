"""Every family behind see / read / fuse gives what transformers' own forward gives, one pair at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vlbench import catalog
from vlbench.core.backbone import Pretrained
from vlbench.core.examples import ImageRef
from vlbench.data.images.load import ImageFiles, open_image
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources

MakeHF = Callable[..., Path]
TEXTS = ["is there a red circle", "what colour is the square left of the two blue circles in the picture", "a square"]
SIZES = ((64, 64), (90, 64), (64, 120))
NUMBERS = 64


class Drawn:
    """Regions drawn from the image's key, two to four of them."""

    dim = NUMBERS

    def get(self, ref: ImageRef) -> Regions:
        seed = zlib.crc32(ref.key.encode())
        rng, n = np.random.default_rng(seed), 2 + int(ref.key) % 3
        corners = (rng.uniform(0, 1, (n, 4)) * [200, 50, 200, 50]).astype(np.float32)
        none, zero = np.zeros(n, np.int64), np.zeros(n, np.float32)
        return Regions(200, 50, corners, rng.normal(size=(n, NUMBERS)).astype(np.float32), none, zero, none, zero)


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    """Three images of noise, each of another shape."""
    folder, found = tmp_path_factory.mktemp("images"), []
    for number, (width, height) in enumerate(SIZES):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        found.append(ImageRef(folder / f"{number}.png", str(number)))
    return found


@pytest.fixture(scope="module")
def load(make_hf: MakeHF) -> Callable[..., Any]:
    """A pretrained backbone by architecture, in evaluation mode, and its folder."""

    def load(architecture: str, **changes: Any) -> tuple[Any, Path]:
        folder = make_hf(architecture, **changes)
        card = catalog.model_card(f"hf:{folder}")
        backbone: Any = catalog.load_model(card, "hf", Resources(None, ImageFiles(), Drawn()))
        assert isinstance(backbone, Pretrained)
        backbone.load_pretrained()
        return backbone.eval(), folder

    return load


def fused(backbone: Any, refs: list[ImageRef], slot: int = 0) -> Any:
    """All images with all texts, in one batch: features of 9 pairs, image by image."""
    with torch.no_grad():
        seen = backbone.see(backbone.prepare_images(refs), torch.full((len(refs),), slot))
        read = backbone.read(backbone.prepare_texts(TEXTS))
        rows = torch.arange(len(refs) * len(TEXTS))
        return backbone.fuse(seen.take(rows // len(TEXTS)), read.take(rows % len(TEXTS)))


def inputs(folder: Path, ref: ImageRef, text: str) -> dict[str, Tensor]:
    """What the library's own processor makes of one pair."""
    images = hf.AutoImageProcessor.from_pretrained(folder)(images=[open_image(ref.path)], return_tensors="pt")
    texts = hf.AutoTokenizer.from_pretrained(folder)([text], return_tensors="pt", return_token_type_ids=False)
    return {**images, **texts}


def regions(ref: ImageRef) -> tuple[Tensor, Tensor]:
    found = Drawn().get(ref)
    return torch.from_numpy(found.features)[None], torch.from_numpy(found.boxes / [200, 50, 200, 50])[None].float()


def test_vilt_pools_as_the_library_does(load: Callable[..., Any], refs: list[ImageRef]) -> None:
    backbone, folder = load("ViltModel")
    reference = hf.ViltModel.from_pretrained(folder).eval()
    found = fused(backbone, refs)
    for row, (ref, text) in enumerate((ref, text) for ref in refs for text in TEXTS):
        with torch.no_grad():
            expected = reference(**inputs(folder, ref, text))
        torch.testing.assert_close(found.pooled[row], expected.pooler_output[0], atol=2e-5, rtol=0)
        words = found.text[row][found.text_mask[row]]
        torch.testing.assert_close(words, expected.last_hidden_state[0, : len(words)], atol=5e-5, rtol=0)


def test_vilts_second_image_has_its_own_type(load: Callable[..., Any], refs: list[ImageRef]) -> None:
    two, folder = load("ViltModel", modality_type_vocab_size=3)
    reference = hf.ViltModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = reference(**inputs(folder, refs[1], TEXTS[0]), image_token_type_idx=2).pooler_output[0]
    torch.testing.assert_close(fused(two, refs, slot=1).pooled[3], expected, atol=2e-5, rtol=0)
    one, _ = load("ViltModel")  # which knows one image only: the second begins as the first
    assert torch.equal(fused(one, refs, slot=1).pooled, fused(one, refs, slot=0).pooled)
    assert not torch.allclose(fused(two, refs, slot=1).pooled, fused(two, refs, slot=0).pooled, atol=1e-3)


def test_vilt_sees_the_same_twice_and_leaves_the_random_state_alone(
    load: Callable[..., Any], refs: list[ImageRef]
) -> None:
    backbone, _ = load("ViltModel")
    before = torch.get_rng_state()
    first, second = (backbone.see(backbone.prepare_images(refs), torch.zeros(3, dtype=torch.int64)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.states[first.mask], second.states[second.mask])
    assert first.mask.sum(dim=1).tolist() == [1 + 16, 1 + 20, 1 + 18]  # 4x4, 4x5 and 3x6 patches of 16 pixels


def test_lxmert(load: Callable[..., Any], refs: list[ImageRef]) -> None:
    backbone, folder = load("LxmertModel")
    reference = hf.LxmertModel.from_pretrained(folder).eval()
    tokenizer, found = hf.AutoTokenizer.from_pretrained(folder), fused(backbone, refs)
    for row, (ref, text) in enumerate((ref, text) for ref in refs for text in TEXTS):
        features, boxes = regions(ref)
        with torch.no_grad():
            ids = tokenizer([text], return_tensors="pt")["input_ids"]
            expected = reference(input_ids=ids, visual_feats=features, visual_pos=boxes)
        torch.testing.assert_close(found.pooled[row], expected.pooled_output[0], atol=2e-5, rtol=0)
        seen = found.visual[row][found.visual_mask[row]]
        torch.testing.assert_close(seen, expected.vision_output[0], atol=5e-5, rtol=0)


def test_visual_bert(load: Callable[..., Any], refs: list[ImageRef]) -> None:
    backbone, folder = load("VisualBertModel")
    reference = hf.VisualBertModel.from_pretrained(folder).eval()
    tokenizer, found = hf.AutoTokenizer.from_pretrained(folder), fused(backbone, refs)
    for row, (ref, text) in enumerate((ref, text) for ref in refs for text in TEXTS):
        features, _ = regions(ref)
        types = torch.ones(features.shape[:2], dtype=torch.int64)
        with torch.no_grad():
            ids = tokenizer([text], return_tensors="pt")["input_ids"]
            expected = reference(input_ids=ids, visual_embeds=features, visual_token_type_ids=types)
        torch.testing.assert_close(found.pooled[row], expected.pooler_output[0], atol=2e-5, rtol=0)


def test_flava(load: Callable[..., Any], refs: list[ImageRef]) -> None:
    backbone, folder = load("FlavaModel")
    reference = hf.FlavaModel.from_pretrained(folder).eval()
    found = fused(backbone, refs)
    for row, (ref, text) in enumerate((ref, text) for ref in refs for text in TEXTS):
        with torch.no_grad():
            expected = reference(**inputs(folder, ref, text)).multimodal_output
        torch.testing.assert_close(found.pooled[row], expected.pooler_output[0], atol=2e-5, rtol=0)
        words = found.text[row][found.text_mask[row]]
        torch.testing.assert_close(words, expected.last_hidden_state[0, -len(words) :], atol=5e-5, rtol=0)


def test_bridgetower(load: Callable[..., Any], refs: list[ImageRef]) -> None:
    backbone, folder = load("BridgeTowerForImageAndTextRetrieval")
    reference = hf.BridgeTowerModel.from_pretrained(folder).eval()
    found = fused(backbone, refs)
    assert found.pooled.shape == (9, backbone.width)
    for row, (ref, text) in enumerate((ref, text) for ref in refs for text in TEXTS):
        with torch.no_grad():
            expected = reference(**inputs(folder, ref, text)).pooler_output[0]
        torch.testing.assert_close(found.pooled[row], expected, atol=2e-5, rtol=0)


def test_blip_looks_across_and_embeds_apart(load: Callable[..., Any], refs: list[ImageRef]) -> None:
    backbone, folder = load("BlipForImageTextRetrieval")
    reference = hf.BlipForImageTextRetrieval.from_pretrained(folder).eval()
    found = fused(backbone, refs)
    with torch.no_grad():
        seen = backbone.see(backbone.prepare_images(refs), torch.zeros(3, dtype=torch.int64))
        images, texts = backbone.embed_images(seen), backbone.embed_texts(backbone.read(backbone.prepare_texts(TEXTS)))
    for row, (ref, text) in enumerate((ref, text) for ref in refs for text in TEXTS):
        given = inputs(folder, ref, text)
        with torch.no_grad():
            expected = reference(**given).question_embeds[0, 0]
            dot = reference(**given, use_itm_head=False).itm_score[0, 0]
        torch.testing.assert_close(found.pooled[row], expected, atol=2e-5, rtol=0)
        torch.testing.assert_close(images[row // 3] @ texts[row % 3], dot, atol=2e-5, rtol=0)


DUAL = (
    "CLIPModel",
    "SiglipModel",
    "Siglip2Model",
    "AlignModel",
    "AltCLIPModel",
    "ChineseCLIPModel",
    "VisionTextDualEncoderModel",
)


@pytest.mark.parametrize("architecture", DUAL)
def test_two_towers_embed_as_the_library_does(
    load: Callable[..., Any], refs: list[ImageRef], architecture: str
) -> None:
    backbone, folder = load(architecture)
    reference = getattr(hf, architecture).from_pretrained(folder).eval()
    tokenizer, eyes = hf.AutoTokenizer.from_pretrained(folder), hf.AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        seen = backbone.see(backbone.prepare_images(refs), torch.zeros(3, dtype=torch.int64))
        images, texts = backbone.embed_images(seen), backbone.embed_texts(backbone.read(backbone.prepare_texts(TEXTS)))
    assert texts.shape == images.shape and backbone.width == 3 * images.shape[1]
    siglip = architecture.startswith("Siglip")
    for row, (ref, text) in enumerate(zip(refs, TEXTS, strict=True)):
        padding = {"padding": "max_length"} if siglip else {}
        given = tokenizer([text], return_tensors="pt", truncation=True, max_length=40, **padding)
        mask = {} if siglip else {"attention_mask": given["attention_mask"]}
        with torch.no_grad():
            pixels = eyes(images=[open_image(ref.path)], return_tensors="pt")
            image = reference.get_image_features(**pixels).pooler_output
            words = reference.get_text_features(input_ids=given["input_ids"], **mask).pooler_output
        torch.testing.assert_close(images[row], functional.normalize(image[0], dim=-1), atol=2e-5, rtol=0)
        torch.testing.assert_close(texts[row], functional.normalize(words[0], dim=-1), atol=2e-5, rtol=0)
    assert (images[0] - images[1]).abs().max() > 1e-3 and (texts[0] - texts[1]).abs().max() > 1e-3
    products = fused(backbone, refs).pooled[:, -images.shape[1] :].mean(dim=1)
    torch.testing.assert_close(products, (images @ texts.T).flatten(), atol=2e-5, rtol=0)
