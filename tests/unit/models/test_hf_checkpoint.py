"""Two towers out of a file of their own: OpenAI's layout and transformers', against towers written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Resources
from vlbench.engine.learner import Learner
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.heads.dual import DualHead

MakeHF = Callable[..., Path]
WIDTH, LAYERS, HEADS, EMBEDDING, PLACES, PATCH = 32, 2, 2, 16, 40, 8
END = 3
TEXTS = ["a red circle", "is there a blue square left of the circle"]


def layer(before: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{before}attn.in_proj_weight": (3 * WIDTH, WIDTH),
        f"{before}attn.in_proj_bias": (3 * WIDTH,),
        f"{before}attn.out_proj.weight": (WIDTH, WIDTH),
        f"{before}attn.out_proj.bias": (WIDTH,),
        **{f"{before}{norm}.{kind}": (WIDTH,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")},
        f"{before}mlp.c_fc.weight": (2 * WIDTH, WIDTH),
        f"{before}mlp.c_fc.bias": (2 * WIDTH,),
        f"{before}mlp.c_proj.weight": (WIDTH, 2 * WIDTH),
        f"{before}mlp.c_proj.bias": (WIDTH,),
    }


def openai(words: int) -> dict[str, Tensor]:
    """Random weights under OpenAI's names, with the sizes that its archives hold besides."""
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (1 + 16, WIDTH),
        "visual.proj": (WIDTH, EMBEDDING),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "token_embedding.weight": (words, WIDTH),
        "positional_embedding": (PLACES, WIDTH),
        "text_projection": (WIDTH, EMBEDDING),
        "logit_scale": (),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for number in range(LAYERS):
        shapes |= layer(f"visual.transformer.resblocks.{number}.") | layer(f"transformer.resblocks.{number}.")
    generator = torch.Generator().manual_seed(0)
    made = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    sizes = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(PLACES)}
    return made | sizes | {"vocab_size": torch.tensor(words), "logit_scale": torch.tensor(4.0)}


def normed(state: dict[str, Tensor], name: str, values: Tensor) -> Tensor:
    return functional.layer_norm(values, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])


def blocks(state: dict[str, Tensor], before: str, values: Tensor, mask: Tensor | None) -> Tensor:
    """The transformer [T, D] of one example, by torch's own attention, which keeps its weights as OpenAI does."""
    for number in range(LAYERS):
        name = f"{before}resblocks.{number}."
        attention = nn.MultiheadAttention(WIDTH, HEADS)
        attention.load_state_dict({key: state[f"{name}attn.{key}"] for key in attention.state_dict()})
        inner = normed(state, f"{name}ln_1", values)
        values = values + attention(inner, inner, inner, attn_mask=mask)[0]
        inner = normed(state, f"{name}ln_2", values)
        inner = functional.linear(inner, state[f"{name}mlp.c_fc.weight"], state[f"{name}mlp.c_fc.bias"])
        inner = inner * torch.sigmoid(1.702 * inner)
        values = values + functional.linear(inner, state[f"{name}mlp.c_proj.weight"], state[f"{name}mlp.c_proj.bias"])
    return values


def image_by_hand(state: dict[str, Tensor], pixels: Tensor) -> Tensor:
    patches = functional.conv2d(pixels[None], state["visual.conv1.weight"], stride=PATCH)[0].flatten(1).T
    values = torch.cat([state["visual.class_embedding"][None], patches]) + state["visual.positional_embedding"]
    values = blocks(state, "visual.transformer.", normed(state, "visual.ln_pre", values), None)
    return functional.normalize(normed(state, "visual.ln_post", values[0]) @ state["visual.proj"], dim=-1)


def text_by_hand(state: dict[str, Tensor], ids: Tensor) -> Tensor:
    ids = ids[: ids.tolist().index(END) + 1]
    values = state["token_embedding.weight"][ids] + state["positional_embedding"][: len(ids)]
    mask = torch.full((len(ids), len(ids)), -torch.inf).triu(1)
    values = normed(state, "ln_final", blocks(state, "transformer.", values, mask))
    return functional.normalize(values[-1] @ state["text_projection"], dim=-1)


@pytest.fixture
def folder(make_hf: MakeHF) -> Path:
    return make_hf("CLIPModel")


def learner(folder: Path) -> tuple[Learner, Any]:
    card = catalog.model_card(f"hf:{folder}")
    made = Learner(catalog.load_model(card, "hf", Resources(None, ImageFiles())), DualHead()).eval()
    return made, Wanted(card, with_head=True)


def embedded(made: Learner, path: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels, ids, and what the towers make of them."""
    backbone: Any = made.backbone
    images = backbone.prepare_images([ImageRef(path, "a")])
    texts = backbone.prepare_texts(TEXTS)
    with torch.no_grad():
        seen = backbone.see(images, torch.zeros(1, dtype=torch.int64))
        found = backbone.embed_images(seen)[0], backbone.embed_texts(backbone.read(texts))
    return images["pixel_values"][0], texts["ids"], *found


@pytest.mark.parametrize("wrapped", [False, True])
def test_openais_layout(folder: Path, tmp_path: Path, wrapped: bool) -> None:
    made, wanted = learner(folder)
    words = len(made.state_dict()["backbone.network.text_model.embeddings.token_embedding.weight"])
    state, file, path = openai(words), tmp_path / "clip.pt", tmp_path / "a.png"
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}} if wrapped else state, file)
    Image.effect_noise((60, 44), 90).convert("RGB").save(path)
    report = load_weights(made, file, wanted)
    assert (report.missing, report.unexpected) == (0, 3)
    pixels, ids, image, texts = embedded(made, path)
    torch.testing.assert_close(image, image_by_hand(state, pixels), atol=1e-5, rtol=1e-4)
    for row, text in zip(ids, texts, strict=True):
        torch.testing.assert_close(text, text_by_hand(state, row), atol=1e-5, rtol=1e-4)
    assert float(made.state_dict()["head.log_scale"]) == 4.0


@pytest.mark.parametrize("architecture", ["CLIPModel", "SiglipModel", "AlignModel"])
def test_transformers_own_layout(make_hf: MakeHF, tmp_path: Path, architecture: str) -> None:
    """Other weights of the same architecture, as a folder of transformers keeps them."""
    folder = make_hf(architecture)
    weights = {
        name: value * 1.5 if value.is_floating_point() else value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    made, wanted = learner(folder)
    report = load_weights(made, tmp_path, wanted)
    assert report.missing == report.unexpected == 0
    state = made.state_dict()
    assert all(torch.equal(state[f"backbone.network.{name}"], value) for name, value in weights.items())
    expected = weights["logit_scale"] if "logit_scale" in weights else -weights["temperature"].log()
    assert float(state["head.log_scale"]) == pytest.approx(float(expected))


def test_a_folder_that_has_no_place_in_the_model_is_one_itself(make_hf: MakeHF) -> None:
    made, wanted = learner(make_hf("CLIPModel"))
    other = make_hf("ViltModel")
    with pytest.raises(VlbenchError, match=f"give this folder of transformers as --model hf:{other}") as caught:
        load_weights(made, other, wanted)
    assert caught.value.exit_code == ExitCode.WEIGHTS
