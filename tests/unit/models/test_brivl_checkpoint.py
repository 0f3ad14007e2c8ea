"""Official weights: every name of the layout. What the network then computes is compared in test_brivl_golden.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.data.resources import Resources
from vlbench.models.brivl.checkpoint import convert
from vlbench.models.brivl.pretraining import BriVLPretraining


@pytest.fixture
def ours(card_of: Callable[[str], ModelCard], resources: Resources) -> BriVLPretraining:
    torch.manual_seed(0)
    card = card_of("brivl")
    tiny = card.sizes["tiny"]
    # Sizes that all differ, so that nothing fits at random: 64 channels, 32 wide, 128 embedded.
    tiny = tiny.model_copy(update={"config": {**tiny.config, "width": 32}})
    card = card.model_copy(update={"sizes": {"tiny": tiny}})
    return BriVLPretraining.from_card(card, "tiny", resources, {"queue": "4"})


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
    unused = {
        "imgencoder.backbone.classifier.weight": torch.zeros(3, 4),
        "textencoder.backbone.bert.pooler.dense.bias": torch.zeros(5),
        "textencoder_mom.backbone.bert.pooler.dense.weight": torch.zeros(5, 5),
        "textencoder.backbone.bert.embeddings.position_ids": torch.zeros(1, 5),
    }
    unknown = {
        "textqueue": torch.zeros(2),
        "textencoder.backbone.bert.cls.bias": torch.zeros(5),
        "textencoder.backbone.bert.embeddings.segment_embeddings.weight": torch.zeros(2, 5),
        "imgencoder.learnable.posFC.weight": torch.zeros(2, 5),
    }
    converted = convert({"learnable": official | unused | unknown})
    assert converted.unexpected == tuple(sorted(unknown))
    assert converted.optional == {name for name in state if name.startswith("key.")}
    assert {name.partition(".")[0] for name in converted.tables} == {"backbone", "key"}
    scale = converted.weights.pop("head.log_scale")
    assert scale.shape == () and float(scale.exp()) == pytest.approx(1 / 0.07)
    result = ours.load_state_dict(converted.weights, strict=False)
    assert not result.unexpected_keys
    assert {name.partition(".")[0] for name in result.missing_keys} == {"image_queue", "text_queue"}
    for name, value in ours.state_dict().items():
        assert "queue" in name or torch.equal(value, state[name]), name


def test_a_file_without_tensors_is_rejected() -> None:
    with pytest.raises(VlbenchError, match="the checkpoint holds no tensors"):
        convert({"learnable": {"epoch": 3}})
