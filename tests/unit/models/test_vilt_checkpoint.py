"""ViLT's weights from elsewhere: transformers' answer alike on images of mixed sizes, official names round-trip."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vlbench import catalog
from vlbench.core.backbone import Features
from vlbench.core.errors import VlbenchError
from vlbench.heads.classify import ClassifyHead
from vlbench.models.vilt.backbone import ViLT
from vlbench.models.vilt.checkpoint import convert
from vlbench.models.vilt.modeling import ViLTConfig
from vlbench.models.vilt.pretraining import ViLTPretraining, ViLTPretrainingConfig

transformers = pytest.importorskip("transformers")
WIDTH, PATCH, GRID, LAYERS, POSITIONS = 16, 8, 6, 2, 24
LABELS = ("yes", "no", "two", "red")
GRIDS = ((6, 6), (6, 8), (3, 10), (1, 1))
LENGTHS = (7, 2, 24, 5)
LAYOUT = catalog.model_card("vilt").head


@pytest.fixture
def ours(resources: Any) -> ViLT:
    values = {
        "patch": PATCH, "grid": GRID, "short_side": 48, "long_side": 80, "layers": LAYERS, "width": WIDTH, "heads": 4,
        "inner": 32, "positions": POSITIONS, "dropout": 0.1, "initial_std": 0.02,
        "vocab_size": resources.text.vocab_size,
    }  # fmt: skip
    return ViLT(ViLTConfig.model_validate(values), resources).eval()


@pytest.fixture
def theirs(ours: ViLT) -> Any:
    """One of transformers' models of this architecture with random weights, none of them 0."""

    def make(name: str, types: int = 2) -> Any:
        torch.manual_seed(0)
        model = getattr(transformers, name)(
            transformers.ViltConfig(
                vocab_size=ours.config.vocab_size, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
                intermediate_size=32, image_size=PATCH * GRID, patch_size=PATCH, max_position_embeddings=POSITIONS,
                modality_type_vocab_size=types, num_labels=len(LABELS), num_images=2, layer_norm_eps=1e-6,
            )
        ).eval()  # fmt: skip
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
        return model

    return make


def inputs(vocabulary: int, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Texts and images of mixed sizes: our texts, our images, and what transformers' models take."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (len(LENGTHS), max(LENGTHS)), generator=draw)
    words = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    height, width = (PATCH * max(sides) for sides in zip(*GRIDS, strict=True))
    pixels = torch.zeros(len(GRIDS), 3, height, width)
    mask = torch.zeros(len(GRIDS), height, width, dtype=torch.int64)
    most = max(rows * columns for rows, columns in GRIDS)
    patches = torch.zeros(len(GRIDS), most, 3 * PATCH * PATCH, dtype=torch.uint8)
    real = torch.zeros(len(GRIDS), most, dtype=torch.bool)
    for row, (rows, columns) in enumerate(GRIDS):
        image = torch.randint(0, 256, (3, rows * PATCH, columns * PATCH), generator=draw)
        pixels[row, :, : rows * PATCH, : columns * PATCH] = image / 127.5 - 1
        mask[row, : rows * PATCH, : columns * PATCH] = 1
        cut = nn.functional.unfold(image[None].float(), PATCH, stride=PATCH)[0].T
        patches[row, : rows * columns], real[row, : rows * columns] = cut.to(torch.uint8), True
    places = torch.arange(most).repeat(len(GRIDS), 1)
    images = {"patches": patches, "places": places, "grids": torch.tensor(GRIDS), "mask": real}
    given = {"input_ids": ids, "attention_mask": words.long(), "pixel_values": pixels, "pixel_mask": mask}
    return {"ids": ids, "mask": words}, images, given


def loaded(module: nn.Module, weights: dict[str, Tensor]) -> None:
    own = module.state_dict()
    module.load_state_dict({name: weights[name] for name in own})


def answer(model: ViLT, texts: dict[str, Tensor], images: dict[str, Tensor], slot: int = 0) -> Features:
    seen = model.see(images, torch.full((len(images["mask"]),), slot))
    return model.fuse(seen, model.read(texts))


@pytest.mark.parametrize("seed", [0, 1])
def test_transformers_model_from_disk_answers_alike(theirs: Any, ours: ViLT, seed: int, tmp_path: Path) -> None:
    model = theirs("ViltModel")
    model.save_pretrained(tmp_path)
    converted = convert(load_file(tmp_path / "model.safetensors"))
    assert not converted.unexpected
    loaded(nn.ModuleDict({"backbone": ours}), converted.weights)
    texts, images, given = inputs(ours.config.vocab_size, seed)
    with torch.no_grad():
        expected = model(**given)
        got = answer(ours, texts, images)
    assert got.pooled.std() > 0.1
    torch.testing.assert_close(got.pooled, expected.pooler_output, atol=1e-5, rtol=0)
    words = texts["mask"]
    states = expected.last_hidden_state[:, : words.shape[1]]
    torch.testing.assert_close(got.text[words], states[words], atol=1e-5, rtol=0)


def test_transformers_answers_come_with_their_head(theirs: Any, ours: ViLT) -> None:
    model = theirs("ViltForQuestionAnswering")
    converted = convert(model.state_dict())
    assert not converted.unexpected
    head = ClassifyHead(WIDTH, LABELS, LAYOUT).eval()
    loaded(nn.ModuleDict({"backbone": ours, "head": head}), converted.weights)
    texts, images, given = inputs(ours.config.vocab_size)
    with torch.no_grad():
        torch.testing.assert_close(head(answer(ours, texts, images)), model(**given).logits, atol=1e-5, rtol=0)


def test_transformers_pairs_of_images(theirs: Any, ours: ViLT) -> None:
    model = theirs("ViltForImagesAndTextClassification", types=3)
    converted = convert(model.state_dict())
    assert not converted.unexpected
    head = ClassifyHead(WIDTH, LABELS, LAYOUT, 2).eval()
    loaded(nn.ModuleDict({"backbone": ours, "head": head}), converted.weights)
    texts, images, given = inputs(ours.config.vocab_size)
    turned = {name: value.flip(0) for name, value in images.items()}
    both = {
        **given,
        "pixel_values": torch.stack([given["pixel_values"], given["pixel_values"].flip(0)], dim=1),
        "pixel_mask": torch.stack([given["pixel_mask"], given["pixel_mask"].flip(0)], dim=1),
    }
    with torch.no_grad():
        expected = model(**both).logits
        first, second = answer(ours, texts, images, 0).pooled, answer(ours, texts, turned, 1).pooled
        got = head.classifier(torch.cat([first, second], dim=1))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_transformers_words_and_ranks(theirs: Any, ours: ViLT) -> None:
    model = theirs("ViltForMaskedLM")
    module = ViLTPretraining(ours, ViLTPretrainingConfig()).eval()
    converted = convert(model.state_dict())
    assert not converted.unexpected
    missing = module.load_state_dict(converted.weights, strict=False)
    assert {name.split(".")[0] for name in missing.missing_keys} == {"matching"} and not missing.unexpected_keys
    texts, images, given = inputs(ours.config.vocab_size)
    with torch.no_grad():
        words = texts["mask"]
        got = module.words(answer(ours, texts, images).text)[words]
        expected = model(**given).logits[:, : words.shape[1]][words]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    ranks = theirs("ViltForImageAndTextRetrieval").state_dict()
    assert torch.equal(convert(ranks).weights["head.score.weight"], ranks["rank_output.weight"])


OFFICIAL = (
    ("encoder.layer.", "transformer.blocks."),
    (".attention.output.dense.", ".attn.proj."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    ("embeddings.text_embeddings.", "text_embeddings."),
    ("embeddings.token_type_embeddings.", "token_type_embeddings."),
    ("embeddings.patch_embeddings.projection.", "transformer.patch_embed.proj."),
    ("embeddings.position_embeddings", "transformer.pos_embed"),
    ("embeddings.cls_token", "transformer.cls_token"),
    ("layernorm.", "transformer.norm."),
)


def official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names as ViLT's own files have them: query, key and value in one product."""
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".attention.attention.query." in key:
            parts = [state[key.replace("query", part)] for part in ("query", "key", "value")]
            key, value = key.replace("attention.attention.query", "attn.qkv"), torch.cat(parts)
        elif ".attention.attention." in key:
            continue
        for theirs, own in OFFICIAL:
            key = key.replace(theirs, own) if theirs.startswith(".") else re.sub(f"^{re.escape(theirs)}", own, key)
        named[key] = value
    return named


def test_official_names_mean_the_same(theirs: Any) -> None:
    state = theirs("ViltModel").state_dict()
    plain = convert(state)
    file = official(state) | {"text_embeddings.position_ids": torch.arange(24)[None]}
    file |= {"itm_score.fc.weight": torch.randn(2, WIDTH), "itm_score.fc.bias": torch.randn(2)}
    file |= {"mlm_score.bias": torch.randn(9), "vqa_classifier.3.weight": torch.randn(4, 32)}
    converted = convert({"state_dict": {f"module.{key}": value for key, value in file.items()}, "epoch": 3})
    assert not converted.unexpected
    for name, value in plain.weights.items():
        assert torch.equal(converted.weights[name], value), name
    assert converted.weights.keys() - plain.weights.keys() == {
        "matching.weight", "matching.bias", "head.score.weight", "head.score.bias", "words.decoder.bias",
        "head.classifier.3.weight",
    }  # fmt: skip
    assert torch.equal(converted.weights["head.score.weight"], file["itm_score.fc.weight"][1:])


def test_a_file_of_two_types_gives_the_second_image_the_firsts(theirs: Any) -> None:
    state = theirs("ViltModel").state_dict()
    types = state["embeddings.token_type_embeddings.weight"]
    grown = convert(state).weights["backbone.network.types.weight"]
    assert torch.equal(grown, torch.cat([types, types[1:]]))
    three = theirs("ViltModel", types=3).state_dict()
    assert torch.equal(
        convert(three).weights["backbone.network.types.weight"], three["embeddings.token_type_embeddings.weight"]
    )


def test_a_ranking_head_of_its_own_wins(theirs: Any) -> None:
    state = {
        "rank_output.weight": torch.ones(1, WIDTH),
        "itm_score.fc.weight": torch.zeros(2, WIDTH),
        "strange": torch.ones(1),
    }
    converted = convert(state)
    assert converted.weights["head.score.weight"].eq(1).all() and converted.unexpected == ("strange",)


def test_a_file_without_tensors_is_rejected() -> None:
    with pytest.raises(VlbenchError, match="holds no tensors"):
        convert({"epoch": 3})
