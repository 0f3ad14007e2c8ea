"""LXMERT and CVLP against the numbers of their official code, weights loaded as `--checkpoint FILE` loads them.

Shapes: N images, M texts, R regions, F numbers per region, T text tokens, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlbench.core.backbone import Features
from vlbench.core.cards import ModelCard, SizeCard
from vlbench.data.resources import Resources
from vlbench.engine.learner import Learner
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.models.cvlp.pretraining import CVLPPretraining
from vlbench.models.layers.convert import strip
from vlbench.models.layers.crossmodal_checkpoint import convert
from vlbench.models.lxmert.pretraining import LXMERTPretraining

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
Build = Callable[[str, dict[str, Any]], tuple[ModelCard, Resources]]


@pytest.fixture
def build(build_golden: Callable[..., tuple[ModelCard, Resources]]) -> Build:
    """The card of a model with a size `golden` of an official configuration, and a vocabulary of its length."""

    def make(model: str, config: dict[str, Any]) -> tuple[ModelCard, Resources]:
        size = SizeCard(
            vocabulary="own",
            max_text=config["max_position_embeddings"],
            config={
                "language_layers": config["l_layers"],
                "region_layers": config["r_layers"],
                "cross_layers": config["x_layers"],
                "width": config["hidden_size"],
                "heads": config["num_attention_heads"],
                "inner": config["intermediate_size"],
                "positions": config["max_position_embeddings"],
                "max_regions": 36,
                "dropout": config["dropout"],
                "attention_dropout": config["dropout"],
                "initial_std": 0.02,
                "standardise": False,
            },
        )
        return build_golden(model, size, config["vocab_size"], config["visual_feat_dim"])

    return make


@pytest.fixture
def finetuned(build: Build, load_finetuned: Callable[..., Learner]) -> Callable[..., Learner]:
    """The learner of a task with the weights of an official file; all of them fit."""

    def make(model: str, case: Any, task: str, file: Path) -> Learner:
        return load_finetuned(*build(model, case.config), case, task, file)

    return make


def encode(backbone: Any, ids: Tensor, text_mask: Tensor, features: Tensor, boxes: Tensor, mask: Tensor) -> Features:
    """Features of M texts with M images."""
    seen = backbone.see({"features": features, "boxes": boxes, "mask": mask}, torch.zeros(len(ids), dtype=torch.int64))
    result: Features = backbone.fuse(seen, backbone.read({"ids": ids, "mask": text_mask}))
    return result


@pytest.mark.parametrize("model", ["lxmert", "cvlp"])
def test_states(model: str, build: Build, golden_case: Any) -> None:
    case = golden_case(model, "states")
    card, resources = build(model, case.config)
    module: Any = {"lxmert": LXMERTPretraining, "cvlp": CVLPPretraining}[model].from_card(
        card, "golden", resources, {"objects": 30, "attributes": 12} if model == "lxmert" else {"queue": 48}
    )
    report = load_weights(module, GOLDEN / model / "weights.safetensors", Wanted(card))
    momentum = sum(name.startswith(("key.", "queue.")) for name in module.state_dict())  # of which files hold none
    assert (report.missing, report.unexpected, report.absent) == (momentum, 0, ())
    backbone, given = module.backbone.eval(), case.inputs
    words = given["text_mask"].bool()
    for suffix, mask in (("", torch.ones_like(given["visual_mask"])), ("_masked", given["visual_mask"])):
        with torch.no_grad():
            got = encode(backbone, given["ids"], words, given["feats"], given["boxes"], mask.bool())
        case.assert_close(f"lang{suffix}", got.text, words)
        case.assert_close(f"visn{suffix}", got.visual, mask)
        case.assert_close(f"pooled{suffix}", got.pooled)


def several_processes(weights: dict[str, Tensor], model: str) -> dict[str, Tensor]:
    """The names that `--multiGPU` gives a finetuned file, as the official code's list of them has it."""
    names = json.loads((GOLDEN / model / "official_keys.json").read_text())["keys"][
        "finetuned vqa (BEST.pth, --multiGPU)"
    ]
    renamed = {
        key.replace("lxrt_encoder.model.", "lxrt_encoder.model.module."): value for key, value in weights.items()
    }
    assert renamed.keys() == names.keys()
    return renamed


@pytest.mark.parametrize("multi_gpu", [False, True])
@pytest.mark.parametrize("model", ["lxmert", "cvlp"])
def test_questions(model: str, multi_gpu: bool, finetuned: Any, golden_case: Any, tmp_path: Path) -> None:
    case, file = golden_case(model, "vqa"), GOLDEN / model / "vqa_weights.safetensors"
    if multi_gpu:
        file = tmp_path / "BEST.pth"
        torch.save(several_processes(case.weights, model), file)
    learner, given = finetuned(model, case, "vqa2", file), case.inputs
    every = torch.ones(given["feats"].shape[:2], dtype=torch.bool)
    with torch.no_grad():
        got = encode(learner.backbone, given["ids"], given["ids"] > 0, given["feats"], given["boxes"], every)
        case.assert_close("logits", learner.head(got))


@pytest.mark.parametrize("model", ["lxmert", "cvlp"])
def test_two_images_and_a_statement(model: str, finetuned: Any, golden_case: Any) -> None:
    case = golden_case(model, "nlvr2")
    learner = finetuned(model, case, "nlvr2", GOLDEN / model / "nlvr2_weights.safetensors")
    ids, features, boxes = (case.inputs[name] for name in ("ids", "feats", "boxes"))
    ids = ids.repeat_interleave(2, dim=0)  # the statement with its first image, then with its second
    every = torch.ones(len(ids), features.shape[2], dtype=torch.bool)
    with torch.no_grad():
        got = encode(learner.backbone, ids, ids > 0, features.flatten(0, 1), boxes.flatten(0, 1), every)
        case.assert_close("logits", learner.head(got))


def labels(given: Tensor) -> Tensor:
    """The official code uses -1 where there is nothing to predict."""
    return torch.where(given < 0, -100, given)


def test_losses_of_lxmert(build: Build, golden_case: Any) -> None:
    case = golden_case("lxmert", "losses")
    card, resources = build("lxmert", case.config)
    module = LXMERTPretraining.from_card(card, "golden", resources, {"objects": 30, "attributes": 12}).eval()
    report = load_weights(module, GOLDEN / "lxmert" / "weights.safetensors", Wanted(card))
    assert (report.missing, report.unexpected) == (0, 0)
    assert convert(case.weights).unexpected == ()
    module.learn_answers([str(number) for number in range(case.config["num_answers"])])
    assert module.answer_head is not None
    heads = strip({key.removeprefix("answer_head.logit_fc."): value for key, value in case.weights.items()})
    module.answer_head.load_state_dict({name: heads[name] for name in module.answer_head.state_dict()})
    given = case.inputs
    batch = {
        "ids": given["ids"],
        "text_mask": given["text_mask"].bool(),
        "labels": labels(given["mlm_labels"]),
        "matched": given["matched"].bool(),
        "text_rows": torch.arange(len(given["ids"])),
        "same_image": torch.ones(len(given["ids"]), dtype=torch.bool),
        "answers": labels(given["answers"]),
        "features": given["feats"],
        "hidden": given["hidden_feats"],
        "chosen": given["feat_mask"].bool(),
        "boxes": given["boxes"],
        "visual_mask": torch.ones(given["feats"].shape[:2], dtype=torch.bool),
        "obj": given["obj_labels"],
        "obj_confidence": given["obj_conf"],
        "attr": given["attr_labels"],
        "attr_confidence": given["attr_conf"],
    }
    with torch.no_grad():
        losses = module.losses(batch)
    for official, own in {
        "mlm": "mlm",
        "matched": "itm",
        "obj": "obj",
        "attr": "attr",
        "feat": "feat",
        "qa": "qa",
    }.items():
        case.assert_close(official, losses[own])
    case.assert_close("total", torch.stack(list(losses.values())).sum())


def kept(draws: Tensor, layers: int) -> Tensor:
    """Which layers run: of each two, a draw of 1 leaves out the second; the last one always runs."""
    runs = torch.ones(layers, dtype=torch.bool)
    runs[1 : 2 * len(draws) : 2] = draws == 0
    return runs


def test_five_steps_of_cvlp(build: Build, golden_case: Any) -> None:
    """Keys, queue, losses, an optimizer's step, and the key network that follows, from step to step."""
    case = golden_case("cvlp", "contrast")
    config, given = case.config, case.inputs
    card, resources = build("cvlp", config)
    regions = given["feats"].shape[1] * given["feats"].shape[2]
    module = CVLPPretraining.from_card(
        card, "golden", resources, {"momentum": config["key_momentum"], "queue": config["queue_steps"] * regions}
    ).train()
    report = load_weights(module, GOLDEN / "cvlp" / "weights.safetensors", Wanted(card))
    assert (report.unexpected, report.absent) == (0, ())
    module.key.load_state_dict(module._query[0].state_dict())  # the case starts from a key network that is a copy
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for step in range(5):
        batch = {
            "ids": given["ids"][step],
            "text_mask": given["text_mask"][step].bool(),
            "labels": labels(given["mlm_labels"][step]),
            "matched": given["matched"][step].bool(),
            "features": given["feats"][step],
            "hidden": given["hidden_feats"][step],
            "boxes": given["boxes"][step],
            "visual_mask": torch.ones(given["feats"].shape[1:3], dtype=torch.bool),
            "language": kept(given["draws_language"][step], config["l_layers"]),
            "region": kept(given["draws_region"][step], config["r_layers"]),
            "cross": kept(given["draws_cross"][step], config["x_layers"]),
        }
        losses = module.losses(batch)
        torch.testing.assert_close(
            module._fresh[-1], case.outputs["keys"][step], atol=case.absolute, rtol=case.relative
        )
        if step >= config["queue_steps"]:
            for official, own in {"mlm": "mlm", "matched": "itm", "contrast": "contrast"}.items():
                expected = case.outputs[official][step - config["queue_steps"]]
                torch.testing.assert_close(losses[own].detach(), expected, atol=case.absolute, rtol=case.relative)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
        else:
            assert float(losses["contrast"].detach()) == 0.0
        module.after_step()
