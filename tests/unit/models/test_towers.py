"""Networks of images or texts alone, saved by transformers, give the same states as towers of the models here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from vlbench.core.cards import ModelCard
from vlbench.core.validate import parse
from vlbench.engine.weights.files import weights_file
from vlbench.engine.weights.state_dict import read_state
from vlbench.models.brivl.checkpoint import TOWERS as BRIVL
from vlbench.models.brivl.modeling import BriVLConfig, TextTower
from vlbench.models.layers.attention import attention_mask
from vlbench.models.layers.crossmodal import CrossModalConfig, CrossModalNetwork
from vlbench.models.layers.crossmodal_checkpoint import TOWERS as CROSSMODAL
from vlbench.models.layers.efficientnet import EfficientNet, Stage
from vlbench.models.layers.efficientnet import Layout as EfficientLayout
from vlbench.models.layers.resnet import Layout, ResNet
from vlbench.models.layers.towers import Tower
from vlbench.models.soho.checkpoint import TOWERS as SOHO
from vlbench.models.vilt.checkpoint import TOWERS as VILT
from vlbench.models.vilt.modeling import ViLTConfig, ViLTNetwork

BERT = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 32, "max_position_embeddings": 24}  # fmt: skip
CARDS = Path(__file__).parents[3] / "vlbench" / "models"


def saved(model: Any, folder: Path) -> dict[str, object]:
    """The state of a model of transformers with random weights and statistics, through the file that it saves."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(
                    torch.rand(value.shape) + 0.5 if name.endswith("running_var") else torch.randn(value.shape) / 4
                )
    model.save_pretrained(folder)
    return read_state(weights_file(folder))


def fill(network: nn.Module, below: str, tower: Tower, state: Mapping[str, object]) -> list[str]:
    """Load a tower into a network that is `below` in its model; the names within the network that were filled."""
    own = {f"{below}{name}": value for name, value in network.state_dict().items()}
    found = tower.converted(state, own)
    needed = {name for name in own if name.startswith(tower.fills)}
    assert found.keys() == needed
    within = {name.removeprefix(below): value for name, value in found.items()}
    network.load_state_dict(within, strict=False)
    network.eval()
    return sorted(within)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert float(theirs.detach().abs().mean()) > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("headed", [False, True])
def test_bert_is_brivls_text_tower(tmp_path: Path, headed: bool) -> None:
    kind = hf.BertForMaskedLM if headed else hf.BertModel
    theirs = kind(hf.BertConfig(**BERT)).eval()
    state = saved(theirs, tmp_path)
    config = dict(parse(ModelCard, read_card("brivl"), "brivl").sizes["tiny"].config)
    config |= {"layers": 2, "width": 16, "heads": 4, "inner": 32, "positions": 24, "vocab_size": 30}
    tower = TextTower(parse(BriVLConfig, config, "test"))
    filled = fill(tower, "backbone.network.text.", BRIVL["text"], state)
    assert not any(name.startswith("head.") for name in filled)
    ids, mask = torch.randint(0, 30, (2, 7)), torch.ones(2, 7, dtype=torch.bool)
    states, keys = tower.embeddings(ids), attention_mask(mask)
    for layer in tower.layers:
        states = layer(states, keys)
    body = theirs.bert if headed else theirs
    assert_same(states, body(input_ids=ids, attention_mask=mask.long()).last_hidden_state)


def test_bert_is_the_language_encoder_of_lxmert_and_cvlp(tmp_path: Path, config: CrossModalConfig) -> None:
    theirs = hf.BertModel(hf.BertConfig(**(BERT | {"vocab_size": config.vocab_size, "num_hidden_layers": 4}))).eval()
    state = saved(theirs, tmp_path)
    network = CrossModalNetwork(config)
    fill(network, "backbone.network.", CROSSMODAL["text"], state)
    ids, mask = torch.randint(0, config.vocab_size, (2, 7)), torch.ones(2, 7, dtype=torch.bool)
    expected = theirs(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states[3]
    assert_same(network.read(ids, mask), expected)


def test_efficientnet_of_transformers_is_brivls(tmp_path: Path) -> None:
    theirs = hf.EfficientNetModel(
        hf.EfficientNetConfig(
            width_coefficient=1.0,
            depth_coefficient=1.0,
            in_channels=[32, 16, 24],
            out_channels=[16, 24, 40],
            kernel_sizes=[3, 3, 5],
            strides=[1, 2, 2],
            num_block_repeats=[1, 2, 2],
            expand_ratios=[1, 6, 6],
            depthwise_padding=[],
            hidden_dim=1280,
            image_size=64,
        )
    ).eval()
    state = saved(theirs, tmp_path)
    head = int(theirs.encoder.top_conv.weight.shape[0])
    ours = EfficientNet(
        EfficientLayout(32, (Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40)), head)
    )
    fill(ours, "backbone.network.image.cnn.", BRIVL["vision"], state)
    pixels = torch.randn(2, 3, 64, 64)
    assert_same(ours(pixels), theirs(pixels).last_hidden_state)


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_resnet_of_transformers_is_sohos(tmp_path: Path, layer_type: str) -> None:
    bottleneck = layer_type == "bottleneck"
    widths = [32, 64] if bottleneck else [8, 16]
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=widths, depths=[2, 1], layer_type=layer_type)
    theirs = hf.ResNetForImageClassification(config).eval()
    state = saved(theirs, tmp_path)
    ours = ResNet(Layout((2, 1), 8, bottleneck=bottleneck, large_stem=True))
    fill(ours, "backbone.network.resnet.", SOHO["vision"], state)
    pixels = torch.randn(2, 3, 64, 64)
    assert_same(ours(pixels, None), theirs.resnet(pixels).last_hidden_state)


def test_vit_of_transformers_is_vilts_transformer(tmp_path: Path) -> None:
    theirs = hf.ViTModel(
        hf.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
            image_size=64,
            patch_size=32,
        )
    ).eval()
    state = saved(theirs, tmp_path)
    config = dict(parse(ModelCard, read_card("vilt"), "vilt").sizes["tiny"].config)
    config |= {"width": 16, "layers": 2, "heads": 4, "inner": 32, "patch": 32, "grid": 2, "vocab_size": 30}
    network = ViLTNetwork(parse(ViLTConfig, config, "test"))
    filled = fill(network, "backbone.network.", VILT["vision"], state)
    assert not any(name.startswith(("text.", "types.", "pooler.")) for name in filled)
    network.types.weight.data.zero_()
    patches = torch.randint(0, 256, (1, 4, 3, 32, 32))
    grid = patches.view(1, 2, 2, 3, 32, 32).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 64, 64)
    places, kinds = torch.arange(4)[None], torch.zeros(1, dtype=torch.int64)
    states = network.place(network.project(patches.flatten(2), places >= 0), places, torch.tensor([[2, 2]]), kinds)
    mask = attention_mask(torch.ones(1, 5, dtype=torch.bool))
    for block in network.blocks:
        states = block(states, mask)
    assert_same(network.norm(states), theirs(pixel_values=(grid - 127.5) / 127.5).last_hidden_state)


def read_card(name: str) -> dict[str, object]:
    from vlbench.core.yamlfile import read_yaml

    return read_yaml(CARDS / name / "model.yaml", name, trusted=True)
