"""Official weights: every name of the layout, and the towers as PyTorch's and transformers' own modules make them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.data.resources import Resources
from vlbench.models.brivl.checkpoint import convert
from vlbench.models.brivl.modeling import BriVLConfig
from vlbench.models.brivl.pretraining import BriVLPretraining


@pytest.fixture
def ours(card_of: Callable[[str], ModelCard], resources: Resources) -> BriVLPretraining:
    torch.manual_seed(0)
    card = card_of("brivl")
    tiny = card.sizes["tiny"]
    # Sizes that all differ, so that nothing fits by chance: 64 channels, 32 wide, 128 embedded.
    tiny = tiny.model_copy(update={"config": {**tiny.config, "width": 32}})
    card = card.model_copy(update={"sizes": {"tiny": tiny}})
    return BriVLPretraining.from_card(card, "tiny", resources, {"queue": "4"})


class Official(nn.Module):
    """A tower's modules below `learnable`, under their names there; `kind` is img or text."""

    def __init__(self, kind: str, width: int, config: BriVLConfig) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, config.head_heads, dim_feedforward=config.head_inner, batch_first=True
        )
        self.kind = kind
        parts: dict[str, nn.Module] = {
            f"{kind}Att": nn.TransformerEncoder(layer, config.head_layers, enable_nested_tensor=False),
            f"{kind}FC": nn.ModuleDict(
                {"fc1": nn.Linear(width, config.embedding), "fc2": nn.Linear(config.embedding, config.embedding)}
            ),
        }
        if kind == "img":
            parts["max_pool"] = nn.Sequential(nn.Conv2d(width, width, 1), nn.AvgPool2d(config.grid))
        self.learnable = nn.ModuleDict(parts)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = self.learnable[f"{self.kind}Att"](functional.normalize(tokens, dim=-1), src_key_padding_mask=~mask)
        mean = torch.stack([row[real].mean(dim=0) for row, real in zip(states, mask, strict=True)])
        fc = self.learnable[f"{self.kind}FC"]
        return functional.normalize(fc["fc2"](fc["fc1"](mean).relu()), dim=-1)

    def regions(self, maps: Tensor, boxes: Tensor, grid: int) -> Tensor:
        """Each box by a grid of its own, every point through the convolution before the mean."""
        found = []
        for one, own in zip(maps, boxes, strict=True):
            for x1, y1, x2, y2 in own.tolist():
                theta = torch.tensor([[[x2 - x1, 0, x1 + x2 - 1], [0, y2 - y1, y1 + y2 - 1]]])
                points = functional.affine_grid(theta, [1, len(one), grid, grid], align_corners=False)
                sampled = functional.grid_sample(one[None], points, align_corners=False)
                found.append(self.learnable["max_pool"](sampled)[0, :, 0, 0])
        return torch.stack(found).view(*boxes.shape[:2], -1)


def randomise(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)


def load(ours: BriVLPretraining, official: dict[str, Tensor], below: str) -> None:
    converted = convert({"learnable": official, "epoch": 3})
    assert not converted.unexpected
    result = ours.load_state_dict(converted.weights, strict=False)
    assert result.unexpected_keys == ["head.log_scale"]
    assert not [name for name in result.missing_keys if name.startswith(below)]


def test_the_text_tower_is_bert_with_pytorchs_layers(ours: BriVLPretraining) -> None:
    transformers = pytest.importorskip("transformers")
    config = ours.backbone.config
    bert = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.inner,
            max_position_embeddings=config.positions,
        ),
        add_pooling_layer=False,
    ).eval()
    tower = Official("text", config.width, config).eval()
    randomise(bert)
    randomise(tower)
    state = {f"textencoder.{name}": value for name, value in tower.state_dict().items()}
    state |= {f"textencoder.backbone.bert.{name}": value for name, value in bert.state_dict().items()}
    load(ours, state, "backbone.network.text.")
    ids, mask = torch.randint(0, config.vocab_size, (3, 7)), torch.ones(3, 7, dtype=torch.bool)
    mask[0, 4:] = False
    with torch.no_grad():
        # The official code lets words attend to padding within BERT; here they never do.
        expected = tower(bert(ids, attention_mask=mask).last_hidden_state, mask)
        found = ours.eval().backbone.network.text(ids, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_image_tower_is_made_of_pytorchs_layers(ours: BriVLPretraining) -> None:
    network, config = ours.eval().backbone.network.image, ours.backbone.config
    tower = Official("img", 64, config).eval()
    randomise(tower)
    official = {f"module.imgencoder.{name}": value for name, value in tower.state_dict().items()}
    official |= {f"module.imgencoder.backbone.{name}": value for name, value in network.cnn.state_dict().items()}
    load(ours, official, "backbone.network.image.")
    pixels = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    low, high = torch.rand(3, 5, 2) / 2, torch.rand(3, 5, 2) / 2 + 0.5
    boxes, mask = torch.cat([low, high], dim=-1), torch.ones(3, 5, dtype=torch.bool)
    mask[1, 1:] = False
    with torch.no_grad():
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        scaled = (pixels / 255 - mean[:, None, None]) / deviation[:, None, None]
        expected = tower(tower.regions(network.cnn(scaled), boxes, config.grid), mask)
        found = network(pixels, boxes, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


OFFICIAL = (
    ("backbone.network.image.", "imgencoder."),
    ("backbone.network.text.", "textencoder."),
    ("key.image.", "imgencoder_mom."),
    ("key.text.", "textencoder_mom."),
)
IN_A_TOWER = (
    ("cnn.", "backbone."),
    ("project.", "learnable.max_pool.0."),
    ("head.layers.", "learnable.{}Att.layers."),
    ("head.", "learnable.{}FC."),
    ("embeddings.norm.", "backbone.bert.embeddings.LayerNorm."),
    ("embeddings.", "backbone.bert.embeddings."),
    ("layers.", "backbone.bert.encoder.layer."),
)
IN_A_LAYER = (
    ("attention.attention.output", "attention.output.dense"),
    ("attention.attention", "attention.self"),
    ("attention.norm", "attention.output.LayerNorm"),
    ("feed_forward.inner", "intermediate.dense"),
    ("feed_forward.outer", "output.dense"),
    ("feed_forward.norm", "output.LayerNorm"),
)


def official_name(name: str) -> str:
    tower, theirs = next(both for both in OFFICIAL if name.startswith(both[0]))
    rest = name.removeprefix(tower)
    part, other = next(both for both in IN_A_TOWER if rest.startswith(both[0]))
    rest = other.format("img" if "img" in theirs else "text") + rest.removeprefix(part)
    if "encoder.layer." in rest:
        for mine, its in IN_A_LAYER:
            rest = rest.replace(mine, its)
    return theirs + rest.replace("attention.output.", "self_attn.out_proj.") if "Att." in rest else theirs + rest


def official_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of the upper layers one below the other, and the projection as a convolution."""
    official, joined = {}, dict[str, list[Tensor]]()
    for name, value in state.items():
        if "queue" in name:
            continue
        key = official_name(name)
        if "Att." in key and any(f".attention.{part}." in key for part in ("query", "key", "value")):
            before, _, kind = key.rpartition(".")
            joined.setdefault(f"{before.rpartition('.attention.')[0]}.self_attn.in_proj_{kind}", []).append(value)
        else:
            official[key] = value[..., None, None] if key.endswith("max_pool.0.weight") else value
    return official | {key: torch.cat(parts) for key, parts in joined.items()}


def test_every_official_name_has_its_place(ours: BriVLPretraining) -> None:
    torch.manual_seed(1)
    state = {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in ours.state_dict().items()
    }
    official = official_state(state)
    unknown = {
        "imgencoder.backbone.classifier.weight": torch.zeros(3, 4),
        "textencoder.backbone.bert.pooler.dense.bias": torch.zeros(5),
        "textencoder.backbone.bert.embeddings.position_ids": torch.zeros(1, 5),
        "textqueue": torch.zeros(2),
    }
    converted = convert({"learnable": official | unknown})
    assert converted.unexpected == tuple(sorted(unknown))
    scale = converted.weights.pop("head.log_scale")
    assert scale.shape == () and float(scale.exp()) == pytest.approx(1 / 0.07)
    result = ours.load_state_dict(converted.weights, strict=False)
    assert not result.unexpected_keys
    assert {name.partition(".")[0] for name in result.missing_keys} == {"image_queue", "text_queue"}
    for name, value in ours.state_dict().items():
        assert "queue" in name or torch.equal(value, state[name]), name


def test_a_file_without_tensors_is_refused() -> None:
    with pytest.raises(VlbenchError, match="the checkpoint holds no tensors"):
        convert({"learnable": {"epoch": 3}})
