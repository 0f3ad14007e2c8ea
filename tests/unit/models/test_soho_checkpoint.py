"""Official weights: BERT's as transformers has them, and every name of the layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlbench.catalog import model_card
from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.heads.classify import classifier
from vlbench.models.soho.checkpoint import convert
from vlbench.models.soho.pretraining import SOHOPretraining

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


@pytest.fixture
def ours(card_of: Callable[[str], ModelCard], resources: Resources) -> SOHOPretraining:
    card = card_of("soho")
    tiny = card.sizes["tiny"]
    config = {**tiny.config, "token": "gated", "update": "official", "entries": 9}
    card = card.model_copy(update={"sizes": {"tiny": tiny.model_copy(update={"config": config})}})
    return SOHOPretraining.from_card(card, "tiny", replace(resources, regions=None), {})


OFFICIAL = (
    ("backbone.network.resnet.", "backbone."),
    ("backbone.network.neck.conv.", "neck.conv.conv."),
    ("backbone.network.neck.bn.", "neck.conv.bn."),
    ("backbone.network.neck.norm.", "neck.ln."),
    ("backbone.network.neck.dictionary.entries", "neck.vq.embed"),
    ("backbone.network.neck.dictionary.counts", "neck.vq.cluster_size"),
    ("backbone.network.neck.dictionary.sums", "neck.vq.embed_avg"),
    ("backbone.network.neck.project.", "neck.pos_line."),
    ("backbone.network.neck.gate.", "neck.gate_fc.conv."),
    ("backbone.network.neck.gate_bn.", "neck.gate_fc.bn."),
    ("mask_embedding.", "neck.mask_emb."),
    ("matching.", "head.match_class."),
    ("backbone.network.embeddings.norm.", "language.bert.embeddings.LayerNorm."),
    ("backbone.network.embeddings.", "language.bert.embeddings."),
    ("backbone.network.layers.", "language.bert.encoder.layer."),
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
    for begin, other in OFFICIAL:
        if name.startswith(begin):
            name = other + name.removeprefix(begin)
            break
    if "encoder.layer" in name:
        for mine, theirs in IN_A_LAYER:
            name = name.replace(mine, theirs)
    return name


def random_state(module: SOHOPretraining) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }


def test_every_official_name_has_its_place(ours: SOHOPretraining) -> None:
    state = random_state(ours)
    official = {f"module.{official_name(name)}": value for name, value in state.items()}
    assert len(official) == len(state)
    official["module.mask_l_fc.weight"] = state["backbone.network.embeddings.word_embeddings.weight"]
    official["module.neck.vq.cluster_sum"] = torch.ones(9)  # how many cells each entry was ever given
    official["module.language.bert.embeddings.position_ids"] = torch.arange(64)[None]
    head = {"module.head.vqa.3.bias": torch.ones(5), "module.head.vqa.0.weight": torch.ones(256, 64)}
    strange = {"module.backbone.fc.weight": torch.zeros(3, 4), "module.neck.vq.age": torch.zeros(9)}
    converted = convert({"state_dict": official | head | strange, "meta": {"epoch": 3}})
    assert converted.unexpected == ("backbone.fc.weight", "neck.vq.age")
    assert converted.optional == {"mask_embedding.weight", "matching.weight"}
    answering = {name: converted.weights.pop(f"head.classifier.{name}") for name in ("3.bias", "0.weight")}
    assert torch.equal(answering["3.bias"], torch.ones(5)) and answering["0.weight"].shape == (256, 64)
    score = {name: converted.weights.pop(name) for name in ("head.score.weight", "head.score.bias")}
    torch.testing.assert_close(score["head.score.weight"][0], state["matching.weight"][1])
    assert score["head.score.weight"].shape == (1, 64) and score["head.score.bias"].tolist() == [0.0]
    ours.load_state_dict(converted.weights)
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


def test_a_file_finetuned_for_questions_brings_no_dictionary(ours: SOHOPretraining, tmp_path: Path) -> None:
    """Nor what weighs its entries: it is whole where a size looks nothing up, and nowhere else."""
    backbone = ours.backbone
    state = {f"backbone.{name}": value + 1 for name, value in backbone.state_dict().items()}
    unused = ("neck.vq.", "neck.pos_line.", "neck.gate_fc.")
    official = {official_name(name): value for name, value in state.items()}
    torch.save({name: value for name, value in official.items() if not name.startswith(unused)}, tmp_path / "vqa.pth")
    learner, wanted = nn.ModuleDict({"backbone": backbone}), Wanted(model_card("soho"))
    with pytest.raises(VlbenchError, match="expected at least 99 %"):
        load_weights(learner, tmp_path / "vqa.pth", wanted)
    backbone.config = backbone.config.model_copy(update={"lookup": "pretraining"})
    absent = load_weights(learner, tmp_path / "vqa.pth", wanted).absent
    assert {name.split(".")[3] for name in absent} == {"dictionary", "project", "gate", "gate_bn"}


@pytest.mark.parametrize("file", ["pretrain_resnet18", "vqa_resnet18"])
def test_official_files_have_all_shapes_of_the_released_size(
    card_of: Callable[[str], ModelCard],
    resources: Resources,
    vocabulary_of: Callable[[int, int], TextEncoder],
    file: str,
) -> None:
    """Names and shapes of the released configuration's files; values are left out, so that nothing is large."""
    listed = json.loads((GOLDEN / "soho" / "official_keys.json").read_text(encoding="utf8"))["keys"][file]
    resources = replace(resources, words=vocabulary_of(30_522, 16), regions=None)
    converted = convert({"state_dict": {name: torch.zeros(()).expand(shape) for name, shape in listed.items()}})
    assert not converted.unexpected
    with torch.device("meta"):
        module = SOHOPretraining.from_card(card_of("soho"), "official", resources, {})
        head = classifier(768, 4 * 768, 3129, card_of("soho").head_layout("official"))
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    if file == "pretrain_resnet18":
        shapes |= {"head.score.weight": (1, 768), "head.score.bias": (1,)}
    else:
        spared = tuple(f"backbone.{part}" for part in module.backbone.spared())
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(spared)}
        del shapes["matching.weight"], shapes["mask_embedding.weight"]
        shapes |= {f"head.classifier.{name}": value.shape for name, value in head.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in converted.weights.items()} == {
        name: tuple(shape) for name, shape in shapes.items()
    }


def test_another_copy_of_the_words_is_not_passed_over(ours: SOHOPretraining) -> None:
    words = ours.state_dict()["backbone.network.embeddings.word_embeddings.weight"]
    official = {"language.bert.embeddings.word_embeddings.weight": words, "mask_l_fc.weight": words + 1}
    assert convert(official).unexpected == ("mask_l_fc.weight",)


def test_the_transformer_is_transformers_bert(ours: SOHOPretraining) -> None:
    transformers = pytest.importorskip("transformers")
    config = ours.backbone.config
    theirs = transformers.BertModel(
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
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    state = {f"language.bert.{name}": value for name, value in theirs.state_dict().items()}
    converted = convert(state)
    network = ours.backbone.eval().network
    result = ours.load_state_dict(converted.weights, strict=False)
    assert not result.unexpected_keys and not converted.unexpected
    assert not [name for name in result.missing_keys if "embeddings.w" in name or ".layers." in name]

    ids, cells = torch.randint(0, config.vocab_size, (3, 7)), torch.randn(3, 5, config.width)
    words, real = torch.ones(3, 7, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    words[0, 4:] = real[1, 2:] = False
    with torch.no_grad():
        text, visual = network.fuse(network.embeddings(ids), words, cells, real)
        joined = torch.cat([theirs.embeddings(ids), cells], dim=1)
        keys = torch.cat([words, real], dim=1)[:, None, None].float()
        states = theirs.encoder(joined, attention_mask=(1 - keys) * torch.finfo(torch.float32).min).last_hidden_state
    torch.testing.assert_close(torch.cat([text, visual], dim=1), states, atol=1e-5, rtol=0)
