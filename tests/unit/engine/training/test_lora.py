"""Low-rank adapters: what is trained and saved, and that the merged model is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vlbench import catalog
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef, Prompt, Query
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Resources
from vlbench.engine.training.lora import add_adapters, merged_state, remove_adapters

ARCHITECTURES = ("ViltModel", "BridgeTowerForImageAndTextRetrieval", "BlipForImageTextRetrieval", "CLIPModel")


def load(folder: Path) -> Any:
    return catalog.load_model(catalog.model_card(f"hf:{folder}"), "hf", Resources(None, ImageFiles())).eval()  # type: ignore[attr-defined]


@pytest.fixture
def image(tiny_world: Path) -> ImageRef:
    return ImageRef(next((tiny_world / "coco").rglob("*.jpg")), "one")


def moved(backbone: Any) -> None:
    """Give every adapter non-zero weights, as training would."""
    torch.manual_seed(1)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.2


@torch.no_grad()
def features(backbone: Any, image: ImageRef) -> torch.Tensor:
    seen = backbone.see(backbone.prepare_images([image]), torch.tensor([0]))
    return backbone.fuse(seen, backbone.read(backbone.prepare_texts(["a red circle"]))).pooled


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merged_weights_are_the_adapted_model(make_hf: Callable[..., Path], image: ImageRef, architecture: str) -> None:
    backbone, plain = (load(make_hf(architecture)) for _ in range(2))
    plain.load_state_dict(backbone.state_dict())
    names, before = list(backbone.state_dict()), features(backbone, image)
    add_adapters(backbone, 4)
    torch.testing.assert_close(features(backbone, image), before)
    moved(backbone)
    after = features(backbone, image)
    assert (after - before).abs().max() > 1e-2
    state = merged_state(backbone)
    assert sorted(state) == sorted(names)
    plain.load_state_dict(state)
    torch.testing.assert_close(features(plain, image), after, atol=1e-4, rtol=1e-4)
    remove_adapters(backbone)
    assert list(backbone.state_dict()) == names
    torch.testing.assert_close(features(backbone, image), before)


def test_generative_models_get_adapters_in_every_layer_but_the_output(
    make_vlm: Callable[[str], Any], image: ImageRef
) -> None:
    backbone = load(make_vlm("qwen2_vl").folder)
    add_adapters(backbone, 2)
    moved(backbone)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained) and not any("lm_head" in name for name in trained)
    for layer in ("q_proj", "k_proj", "v_proj", "o_proj"):
        assert any(f"language_model.layers.0.self_attn.{layer}.lora_A" in name for name in trained)
    prompts = backbone.prepare_prompts([Prompt(Query((image,), "Is it red?"))])
    plain = load(make_vlm("qwen2_vl").folder)
    plain.load_state_dict(merged_state(backbone))
    with torch.inference_mode():
        torch.testing.assert_close(plain.states(prompts), backbone.states(prompts), atol=1e-4, rtol=1e-4)


def test_a_module_without_adapters_is_unchanged() -> None:
    layer = torch.nn.Linear(2, 2)
    state = merged_state(layer)
    remove_adapters(layer)
    assert state.keys() == {"weight", "bias"} and torch.equal(state["weight"], layer.weight)


def test_models_that_are_not_from_transformers_are_rejected() -> None:
    fake: Any = catalog.load_model(catalog.model_card("fake"), "tiny", Resources(None, ImageFiles()))
    with pytest.raises(VlbenchError, match=r"train.lora_rank 4 is for models of transformers \(hf:\), not for Fake"):
        add_adapters(fake, 4)
