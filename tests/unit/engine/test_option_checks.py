"""Options of some models or modes only are rejected with one sentence before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from vlbench import catalog
from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Caption, Example, Query
from vlbench.core.spec import RunSpec
from vlbench.engine import capabilities
from vlbench.engine.capabilities import (
    EvaluatorKind,
    check_fsdp,
    check_negatives,
    check_own_code,
    check_resolved,
    evaluator_for,
)

INSTALLED = ModuleSpec("it", None)
ZERO_SHOT = {"mode": "zero-shot", "answer_by": "text", "checkpoint": "pretrained"}


def card(name: str) -> ModelCard:
    cards = {card.name: card for card in catalog.transformers_cards()}
    return cards.get(name) or catalog.model_card(name)


def spec(**fields: object) -> RunSpec:
    return RunSpec.model_validate({"task": "vqa2", "model": "any", **fields})


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("CLIPModel", {"mode": "finetune"}, ""),
        ("llava", {"mode": "finetune"}, ""),
        ("llava", {"mode": "probe"}, "train.lora_rank 8 is for --mode finetune, not for --mode probe"),
        ("cvlp", {"mode": "finetune"}, "is for models of transformers (hf:), not for cvlp: leave it out"),
    ],
)
def test_adapters(name: str, fields: dict[str, object], message: str) -> None:
    rejects(lambda: check_resolved(spec(train={"lora_rank": 8}, **fields), card(name)), message)
    check_resolved(spec(train={"lora_rank": 0}, **fields), card(name))


@pytest.mark.parametrize(
    ("name", "task", "fields", "message"),
    [
        ("cvlp", "vqa2", {}, ""),
        ("cvlp", "vqa2", {"num_processes": None}, "--fsdp shards training over processes, and there is 1"),
        ("cvlp", "vqa2", {"mode": "probe"}, "--fsdp is not supported with --mode probe: leave one of them out"),
        ("cvlp", "vqa2", {"auto_batch": True}, "with --batch-size auto"),
        ("cvlp", "vqa2", {"compile": True}, "with --compile"),
        ("llava", "vqa2", {"train": {"lora_rank": 8}}, "with train.lora_rank 8"),
        ("brivl", "coco_retrieval", {}, "with the contrastive loss of brivl on coco_retrieval"),
        ("brivl", "coco_retrieval", {"fsdp": False}, ""),
    ],
)
def test_what_cannot_be_sharded(name: str, task: str, fields: dict[str, object], message: str) -> None:
    given = spec(**{"fsdp": True, "num_processes": 2, **fields})
    rejects(lambda: check_fsdp(given, card(name), catalog.task_card(task)), message)


def test_adapters_need_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "find_spec", lambda name: None)
    run_spec = spec(train={"lora_rank": 8})
    rejects(
        lambda: check_resolved(run_spec, card("llava")),
        "needs peft, which is not installed: pip install 'vlbench[lora]'",
    )


@pytest.mark.parametrize("flag", [{"device_map": "auto"}, {"quantize": "4bit"}])
@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "fake",
            ZERO_SHOT,
            "is for generative models of transformers (hf:), in --mode zero-shot or eval, not for fake",
        ),
        ("CLIPModel", ZERO_SHOT | {"answer_by": None}, "not for CLIPModel in --mode zero-shot: leave it out"),
        ("llava", ZERO_SHOT | {"mode": "finetune"}, "not for llava in --mode finetune"),
        ("llava", ZERO_SHOT | {"mode": "probe", "answer_by": None}, "not for llava in --mode probe"),
        ("llava", ZERO_SHOT | {"checkpoint": "runs/x"}, "not for --checkpoint runs/x: leave one out"),
    ],
)
def test_device_maps_and_quantization(flag: dict[str, str], name: str, fields: dict[str, object], message: str) -> None:
    rejects(lambda: check_resolved(spec(**fields, **flag), card(name)), message)
    check_resolved(spec(**fields), card(name))


def test_devices_are_chosen_once() -> None:
    run_spec = spec(**ZERO_SHOT, device_map="auto", device="cuda")
    rejects(lambda: check_resolved(run_spec, card("llava")), "--device-map auto chooses devices, and --device cuda too")


def test_quantization_needs_its_library_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    run_spec = spec(**ZERO_SHOT, quantize="8bit", device="cpu")
    monkeypatch.setattr(capabilities, "find_spec", lambda name: None)
    rejects(
        lambda: check_resolved(run_spec, card("llava")), "--quantize 8bit needs bitsandbytes, which is not installed"
    )
    monkeypatch.setattr(capabilities, "find_spec", lambda name: INSTALLED)
    rejects(lambda: check_resolved(run_spec, card("llava")), "--quantize 8bit needs a CUDA GPU")


@pytest.mark.parametrize(
    ("name", "own_code", "trusted", "message"),
    [
        ("llava", "auto_map in its config.json", False, "comes with code of its own (auto_map in its config.json)"),
        ("llava", "auto_map in its config.json", True, ""),
        ("llava", "", True, ""),
        ("cvlp", "", True, "--trust-remote-code is for models of transformers (hf:), not for cvlp"),
    ],
)
def test_own_code(name: str, own_code: str, trusted: bool, message: str) -> None:
    model = card(name).model_copy(update={"own_code": own_code})
    rejects(lambda: check_own_code(spec(trust_remote_code=trusted), model), message)


def rejects(check: Callable[[], None], message: str) -> None:
    if not message:
        return check()
    with pytest.raises(VlbenchError) as caught:
        check()
    assert message in caught.value.message
    return None


def test_a_run_is_rejected_before_its_data_is_read(
    make_vlm: Callable[[str], Any], vlbench: Callable[..., Any], tmp_path: Path
) -> None:
    """By the command line; the data root would be another error."""
    model = ("--model", f"hf:{make_vlm('llava').folder}", "--task", "nlvr2", "--data-root", tmp_path / "none")
    done = vlbench("run", *model, "--mode", "zero-shot", "--trust-remote-code", "--quantize", "2bit")
    assert done.code == 2 and "quantize" in done.err


def test_a_limit_of_sizes_needs_sizes() -> None:
    check_resolved(spec(train={"short_side": [400, 800], "long_side": 1333}), card("cvlp"))
    check_resolved(spec(train={"long_side": 1333}, mode="eval"), card("cvlp"))
    with pytest.raises(VlbenchError, match=r"train\.long_side 1333 limits .*: give both, or leave it out"):
        check_resolved(spec(train={"long_side": 1333}), card("cvlp"))
    with pytest.raises(ValueError, match="expected the lowest number of pixels first"):
        spec(train={"short_side": [800, 400]})


@pytest.mark.parametrize(
    ("train", "fields", "message"),
    [
        ({"batch_norm": "live"}, {}, ""),
        ({"batch_norm": "live", "accumulation": 1}, {}, ""),
        ({"batch_norm": "frozen", "accumulation": 4}, {"auto_batch": True}, ""),
        ({"accumulation": 4}, {"auto_batch": True}, ""),
        ({"batch_norm": "live", "accumulation": 4}, {"mode": "eval"}, ""),
        ({"batch_norm": "live", "accumulation": 4}, {}, "which train.accumulation 4 may cut into several: give"),
        ({"batch_norm": "live"}, {"auto_batch": True}, "which --batch-size auto may cut into several: give"),
    ],
)
def test_live_batch_norms(train: dict[str, object], fields: dict[str, object], message: str) -> None:
    rejects(lambda: check_resolved(spec(train=train, **fields), card("cvlp")), message)


def captions(*images: str) -> list[Example[Caption]]:
    return [Example(str(n), Query((), ""), Caption(image), image) for n, image in enumerate(images)]


@pytest.mark.parametrize(
    ("model", "size", "images", "mode", "message"),
    [
        ("brivl", 2, "aab", "finetune", ""),
        ("brivl", 1, "aab", "finetune", "and --batch-size 1 leaves one image alone: give 2 or more"),
        ("brivl", 8, "aaa", "finetune", "and all texts of train belong to one image: train on more images"),
        ("brivl", 1, "a", "eval", ""),
        ("cvlp", 1, "aab", "finetune", ""),  # a cross-encoder, which draws its negatives
        ("CLIPModel", 1, "ab", "finetune", "CLIPModel learns coco_retrieval by contrasting the images of an optimizer"),
    ],
)
def test_dual_encoders_need_negatives(model: str, size: int, images: str, mode: str, message: str) -> None:
    task = catalog.task_card("coco_retrieval", None)
    run_spec = spec(mode=mode, train={"batch_size": size}, train_split="train")
    kind = evaluator_for(run_spec, card(model), task)
    assert isinstance(kind, EvaluatorKind)
    rejects(lambda: check_negatives(run_spec, task, card(model), kind, captions(*images)), message)
