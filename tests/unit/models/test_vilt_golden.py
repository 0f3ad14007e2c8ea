"""ViLT against the numbers of its official code, weights loaded as `--checkpoint FILE` loads them.

Shapes: N images, R patches, T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlbench.core.backbone import Features, Tensors
from vlbench.core.cards import ModelCard, SizeCard
from vlbench.data.images.patches import fitted, in_patches
from vlbench.data.resources import Resources
from vlbench.engine.learner import Learner
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.models.vilt.backbone import ViLT
from vlbench.models.vilt.pretraining import ViLTPretraining

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "vilt"
Build = Callable[[dict[str, Any]], tuple[ModelCard, Resources]]


@pytest.fixture
def build(build_golden: Callable[..., tuple[ModelCard, Resources]]) -> Build:
    """The card of ViLT with a size `golden` of an official configuration, and a vocabulary of its length."""

    def make(config: dict[str, Any]) -> tuple[ModelCard, Resources]:
        size = SizeCard(
            vocabulary="own",
            max_text=config["max_text_len"],
            config={
                "patch": config["patch_size"],
                "grid": config["image_size"] // config["patch_size"],
                "short_side": config["resize_short_side"],
                "long_side": config["resize_long_side"],
                "layers": config["num_layers"],
                "width": config["hidden_size"],
                "heads": config["num_heads"],
                "inner": config["hidden_size"] * config["mlp_ratio"],
                "positions": config["max_text_len"],
                "dropout": 0.0,
                "initial_std": 0.02,
            },
        )
        return build_golden("vilt", size, config["vocab_size"])

    return make


@pytest.fixture
def finetuned(build: Build, load_finetuned: Callable[..., Learner]) -> Callable[[Any, str, Path], Learner]:
    """The learner of a task with the weights of an official file; all of them fit."""

    def make(case: Any, task: str, file: Path) -> Learner:
        return load_finetuned(*build(case.config), case, task, file)

    return make


@pytest.fixture
def pretraining(build: Build, golden_case: Any) -> ViLTPretraining:
    """The pretraining module with the weights of an official pretraining file; all of them fit."""
    card, resources = build(golden_case("vilt", "states").config)
    module = ViLTPretraining.from_card(card, "golden", resources, {}).eval()
    report = load_weights(module, GOLDEN / "weights.safetensors", Wanted(card))
    assert (report.missing, report.unexpected, report.absent) == (0, 0, ())
    return module


def images(model: ViLT, pixels: Tensor, sizes: Tensor) -> Tensors:
    """Patches of images [N, 3, H, W] whose real part is the top left one of `sizes` [N, 2], height and width."""
    real = [
        image[:, : int(height), : int(width)].permute(1, 2, 0).contiguous().numpy()
        for image, (height, width) in zip(pixels, sizes, strict=True)
    ]
    return model.collate([in_patches(image, model.config.patch) for image in real])


def encode(model: ViLT, seen: Tensors, ids: Tensor, mask: Tensor, slot: int = 0) -> Features:
    visual = model.see(seen, torch.full((len(ids),), slot))
    return model.fuse(visual, model.read({"ids": ids, "mask": mask.bool()}))


def test_states_and_the_resize(pretraining: ViLTPretraining, golden_case: Any) -> None:
    case, model = golden_case("vilt", "states"), pretraining.backbone
    given, config = case.inputs, model.config
    for (height, width), size in zip(given["original_sizes"].tolist(), given["sizes"].tolist(), strict=True):
        wide, high = fitted(width, height, config.short_side, config.long_side, config.patch)
        assert [high, wide] == size
    with torch.no_grad():
        got = encode(model, images(model, given["pixels"], given["sizes"]), given["text_ids"], given["text_masks"])
    case.assert_close("text", got.text, given["text_masks"])
    case.assert_close("pooled", got.pooled)
    most = got.visual.shape[1]
    assert torch.equal(case.outputs["image_mask"][:, :most].bool(), got.visual_mask)
    assert not case.outputs["image_mask"][:, most:].any()
    torch.testing.assert_close(
        got.visual[got.visual_mask],
        case.outputs["image"][:, :most][got.visual_mask],
        atol=case.absolute,
        rtol=case.relative,
    )


def test_pretraining_losses(pretraining: ViLTPretraining, golden_case: Any) -> None:
    """Masked words over the true images; matching and alignment over those that the official code drew."""
    case, model = golden_case("vilt", "losses"), pretraining.backbone
    given, matched = case.inputs, case.outputs["itm_labels"].bool()
    ids, mask = given["text_ids"], given["text_masks"].bool()
    places, last = torch.arange(ids.shape[1]), mask.sum(dim=1, keepdim=True) - 1
    texts = {
        "ids": ids,
        "hidden_ids": given["text_ids_mlm"],
        "labels": given["text_labels_mlm"],
        "text_mask": mask,
        "words": mask & (places != 0) & (places != last),
        "image_rows": torch.arange(len(ids)),
        "matched": matched,
    }
    drawn = torch.where(matched[:, None, None, None], given["pixels"], given["false_pixels"])
    drawn_sizes = torch.where(matched[:, None], given["sizes"], given["false_sizes"])

    def losses(pixels: Tensor, sizes: Tensor) -> Any:
        seen = images(model, pixels, sizes)
        return pretraining.losses({**texts, **seen, "visual_mask": seen["mask"]})

    with torch.no_grad():
        own, others = losses(given["pixels"], given["sizes"]), losses(drawn, drawn_sizes)
        hidden = encode(model, images(model, given["pixels"], given["sizes"]), given["text_ids_mlm"], mask)
        case.assert_close("mlm_logits", pretraining.words(hidden.text), given["text_labels_mlm"] != -100)
        hidden = encode(model, images(model, drawn, drawn_sizes), ids, mask)
        case.assert_close("itm_logits", pretraining.matching(hidden.pooled))
    case.assert_close("mlm", own["mlm"])
    case.assert_close("itm", others["itm"])
    case.assert_close("wpa", others["wpa"])


def test_questions(finetuned: Any, golden_case: Any) -> None:
    case = golden_case("vilt", "vqa")
    learner = finetuned(case, "vqa2", GOLDEN / "vqa_weights.safetensors")
    model, given = learner.backbone, case.inputs
    with torch.no_grad():
        got = encode(model, images(model, given["pixels"], given["sizes"]), given["text_ids"], given["text_masks"])
        logits = learner.head(got)
    case.assert_close("pooled", got.pooled)
    case.assert_close("logits", logits)
    case.assert_close("loss", learner.head.loss(logits, given["targets"]))


@pytest.mark.parametrize("container", ["safetensors", "lightning"])
def test_two_images_and_a_statement(finetuned: Any, golden_case: Any, container: str, tmp_path: Path) -> None:
    """Also from the container of PyTorch Lightning."""
    case, file = golden_case("vilt", "nlvr2"), GOLDEN / "nlvr2_weights.safetensors"
    if container == "lightning":
        file = tmp_path / "vilt_nlvr2.ckpt"
        torch.save({"state_dict": case.weights, "epoch": 9}, file)
    learner = finetuned(case, "nlvr2", file)
    model, given = learner.backbone, case.inputs
    with torch.no_grad():
        first, second = (
            encode(model, images(model, pixels, sizes), given["text_ids"], given["text_masks"], slot)
            for slot, (pixels, sizes) in enumerate(
                [(given["pixels"], given["sizes"]), (given["second_pixels"], given["second_sizes"])]
            )
        )
        pooled = torch.stack([first.pooled, second.pooled], dim=1).flatten(0, 1)
        logits = learner.head(Features(pooled, first.text, first.visual, first.text_mask, first.visual_mask))
    case.assert_close("pooled_first", first.pooled)
    case.assert_close("pooled_second", second.pooled)
    case.assert_close("logits", logits)
    case.assert_close("loss", learner.head.loss(logits, given["answers"]))
