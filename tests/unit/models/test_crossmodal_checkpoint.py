"""Weights of LXMERT's kind: transformers' load and answer alike; official names, heads and what means nothing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vlbench.core.cards import HeadLayout
from vlbench.core.errors import VlbenchError
from vlbench.heads.classify import ClassifyHead
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.cvlp.checkpoint import convert as cvlp_convert
from vlbench.models.cvlp.pretraining import CVLPPretraining, CVLPPretrainingConfig
from vlbench.models.layers.crossmodal import CrossModalConfig
from vlbench.models.lxmert.backbone import LXMERT
from vlbench.models.lxmert.checkpoint import convert
from vlbench.models.lxmert.pretraining import LXMERTPretraining, LXMERTPretrainingConfig

transformers = pytest.importorskip("transformers")
ANSWERS = ("yes", "no", "two", "red")


@pytest.fixture
def theirs(config: CrossModalConfig) -> Any:
    """One of transformers' models of this architecture with random weights, none of them 0."""

    def make(name: str) -> Any:
        torch.manual_seed(0)
        model = getattr(transformers, name)(
            transformers.LxmertConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.width,
                num_attention_heads=config.heads,
                intermediate_size=config.inner,
                l_layers=config.language_layers,
                r_layers=config.region_layers,
                x_layers=config.cross_layers,
                visual_feat_dim=config.region_dim,
                max_position_embeddings=config.positions,
                num_qa_labels=len(ANSWERS),
                num_object_labels=5,
                num_attr_labels=3,
            )
        ).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
        return model

    return make


def inputs(config: CrossModalConfig, words: int, regions: int) -> dict[str, torch.Tensor]:
    """Three pairs of different lengths, padded."""
    draw = torch.Generator().manual_seed(words)
    text_mask, visual_mask = torch.ones(3, words, dtype=torch.bool), torch.ones(3, regions, dtype=torch.bool)
    text_mask[0, max(1, words // 2) :] = text_mask[2, 1:] = visual_mask[1, max(1, regions // 2) :] = visual_mask[
        2, 1:
    ] = False
    return {
        "ids": torch.randint(0, config.vocab_size, (3, words), generator=draw),
        "features": torch.randn(3, regions, config.region_dim, generator=draw),
        "boxes": torch.rand(3, regions, 4, generator=draw),
        "text_mask": text_mask,
        "visual_mask": visual_mask,
    }


def ask(model: Any, given: dict[str, torch.Tensor]) -> Any:
    return model(
        given["ids"],
        given["features"],
        given["boxes"],
        attention_mask=given["text_mask"].float(),
        visual_attention_mask=given["visual_mask"].float(),
    )


@pytest.mark.parametrize(("words", "regions"), [(7, 6), (2, 1), (20, 36)])
def test_transformers_model_from_disk_answers_alike(
    theirs: Any, config: CrossModalConfig, resources: Any, words: int, regions: int, tmp_path: Path
) -> None:
    model = theirs("LxmertModel")
    model.save_pretrained(tmp_path)
    converted = convert(load_file(tmp_path / "model.safetensors"))
    assert not converted.unexpected
    ours = LXMERT(config, resources).eval()
    ours.load_state_dict({name.removeprefix("backbone."): value for name, value in converted.weights.items()})
    given = inputs(config, words, regions)
    with torch.no_grad():
        expected = ask(model, given)
        seen = ours.network.see(given["features"], given["boxes"], given["visual_mask"])
        read = ours.network.read(given["ids"], given["text_mask"])
        pooled, text, visual = ours.network.fuse(read, given["text_mask"], seen, given["visual_mask"])
    torch.testing.assert_close(pooled, expected.pooled_output, atol=1e-5, rtol=0)
    torch.testing.assert_close(text, expected.language_output, atol=1e-5, rtol=0)
    torch.testing.assert_close(visual, expected.vision_output, atol=1e-5, rtol=0)


def test_transformers_answers_come_with_their_head(theirs: Any, config: CrossModalConfig, resources: Any) -> None:
    model = theirs("LxmertForQuestionAnswering")
    converted = convert(model.state_dict())
    assert not converted.unexpected
    learner = torch.nn.ModuleDict(
        {"backbone": LXMERT(config, resources), "head": ClassifyHead(config.width, ANSWERS, HeadLayout())}
    ).eval()
    learner.load_state_dict(converted.weights)
    given = inputs(config, 7, 6)
    network, head = learner["backbone"].network, learner["head"]
    with torch.no_grad():
        seen = network.see(given["features"], given["boxes"], given["visual_mask"])
        pooled, _, _ = network.fuse(
            network.read(given["ids"], given["text_mask"]), given["text_mask"], seen, given["visual_mask"]
        )
        expected = ask(model, given).question_answering_score
        torch.testing.assert_close(head.classifier(pooled), expected, atol=1e-5, rtol=0)


def test_transformers_pretraining_heads(theirs: Any, config: CrossModalConfig, resources: Any) -> None:
    model = theirs("LxmertForPreTraining")
    converted = convert(model.state_dict())
    assert not converted.unexpected
    module = LXMERTPretraining(LXMERT(config, resources), LXMERTPretrainingConfig(objects=5, attributes=3)).eval()
    own = module.state_dict()
    heads = {name for name in converted.weights if name.startswith("head.")}
    assert heads == {"head.score.weight", "head.score.bias"} | {
        f"head.classifier.{layer}.{kind}" for layer in (0, 2, 3) for kind in ("weight", "bias")
    }
    module.load_state_dict({name: converted.weights[name] for name in own})
    given = inputs(config, 7, 6)
    with torch.no_grad():
        expected = ask(model, given)
        network = module.backbone.network
        seen = network.see(given["features"], given["boxes"], given["visual_mask"])
        read = network.read(given["ids"], given["text_mask"])
        pooled, text, _ = network.fuse(read, given["text_mask"], seen, given["visual_mask"])
        words = module.transform(text) @ network.embeddings.word_embeddings.weight.T + module.word_bias
        torch.testing.assert_close(words, expected.prediction_logits, atol=1e-4, rtol=0)
        matching = expected.cross_relationship_score
        torch.testing.assert_close(module.matching(pooled), matching, atol=1e-5, rtol=0)
        score = torch.nn.functional.linear(
            pooled, converted.weights["head.score.weight"], converted.weights["head.score.bias"]
        )
        torch.testing.assert_close(score[:, 0], matching[:, 1], atol=1e-5, rtol=0)


def official(names: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """transformers' names as the official files of LXMERT and CVLP have them: `bert.` where theirs is `lxmert.`."""
    return {
        prefix + (f"bert.{key.removeprefix('lxmert.')}" if key.startswith("lxmert.") else key): value
        for key, value in names.items()
    }


def test_official_files_of_cvlp(theirs: Any, config: CrossModalConfig, resources: Any) -> None:
    """Data-parallel names, old names of LayerNorm, the contrast's heads; the key network's layers mean nothing here."""
    state = official(theirs("LxmertModel").state_dict(), "")
    state = {f"module.bert.{key}".replace("LayerNorm.weight", "LayerNorm.gamma"): value for key, value in state.items()}
    for layer, shape in ((0, (32, 16)), (2, (32,)), (3, (128, 32))):
        state[f"module.visual_embed_head.logit_fc.{layer}.weight"] = torch.randn(shape)
        state[f"module.visual_embed_head.logit_fc.{layer}.bias"] = torch.randn(shape[0])
    state["module.lang_embed_head.logit_fc.0.weight"] = torch.randn(32, 16)
    state["module.bert.encoder.scc_layer_l.0.output.dense.weight"] = torch.randn(16, 32)
    state["module.obj_predict_head.decoder_dict.obj.weight"] = torch.randn(5, 16)
    converted = cvlp_convert(state)
    assert converted.unexpected == ("encoder.scc_layer_l.0.output.dense.weight",)
    module = CVLPPretraining(CVLP(config, resources), CVLPPretrainingConfig(queue=8))
    missing = module.load_state_dict(converted.weights, strict=False)
    assert not missing.unexpected_keys
    assert {name.split(".")[0] for name in missing.missing_keys} == {
        "word_bias",
        "transform",
        "matching",
        "key",
        "queue",
    }
    assert torch.equal(module.backbone.network.embeddings.norm.weight, state["module.bert.embeddings.LayerNorm.gamma"])


def test_a_wrapped_module_is_told_by_a_whole_part_of_a_name(theirs: Any) -> None:
    """Data-parallel training and torch.compile wrap any module; `submodule` and `modules` are names like others."""
    state = {key: value for key, value in theirs("LxmertModel").state_dict().items() if "word_emb" not in key}
    plain = convert(state).weights
    for place in range(4):
        for wrapping in ("module", "_orig_mod", "module._orig_mod"):
            wrapped = {}
            for key, value in state.items():
                parts = ["lxrt_encoder", "model", "bert", *key.split(".")]
                wrapped[".".join([*parts[:place], wrapping, *parts[place:]])] = value
            found = convert(wrapped)
            assert found.unexpected == () and found.weights.keys() == plain.keys()
            assert all(torch.equal(value, plain[name]) for name, value in found.weights.items())
    kept = {"submodule.weight": torch.zeros(1), "modules.0.weight": torch.ones(1), "my_module.weight": torch.ones(1)}
    assert convert(kept).unexpected == ("modules.0.weight", "my_module.weight", "submodule.weight")
    with pytest.raises(VlbenchError, match=r"holds 'pooler\.dense\.bias' twice"):
        convert({"pooler.dense.bias": torch.zeros(1), "pooler.module.dense.bias": torch.zeros(1)})


def test_official_finetuned_files(theirs: Any, config: CrossModalConfig) -> None:
    state = {f"lxrt_encoder.model.bert.{key}": value for key, value in theirs("LxmertModel").state_dict().items()}
    state["logit_fc.3.weight"] = torch.randn(4, 32)
    converted = convert({"model": state})
    assert not converted.unexpected and torch.equal(
        converted.weights["head.classifier.3.weight"], state["logit_fc.3.weight"]
    )
    assert len(converted.weights) == len(state)


def test_a_decoder_of_its_own_is_not_lost_silently(theirs: Any) -> None:
    state = dict(theirs("LxmertForPreTraining").state_dict())
    key = next(name for name in state if name.endswith("predictions.decoder.weight"))
    state[key] = state[key] + 1
    assert convert(state).unexpected == ("cls.predictions.decoder.weight",)


def test_a_file_without_tensors_is_rejected() -> None:
    with pytest.raises(VlbenchError, match="holds no tensors"):
        convert({"epoch": 3})
