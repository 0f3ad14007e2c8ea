"""Options that only some models take in some modes: one sentence before anything is loaded."""

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
from vlbench.engine import capabilities as options
from vlbench.engine.capabilities import EvaluatorKind, check_negatives, check_own_code, check_resolved, evaluator_for

INSTALLED = ModuleSpec("it", None)
PLACED = {"mode": "zero-shot", "answer_by": "text", "checkpoint": "pretrained"}


def card(name: str) -> ModelCard:
    cards = {one.name: one for one in catalog.transformers_cards()}
    return cards.get(name) or catalog.model_card(name)


def spec(**fields: object) -> RunSpec:
    return RunSpec.model_validate({"task": "vqa2", "model": "any", **fields})


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("CLIPModel", {"mode": "finetune"}, ""),
        ("llava", {"mode": "finetune"}, ""),
        ("llava", {"mode": "probe"}, "train.lora_rank 8 is for --mode finetune, not for --mode probe"),
        ("cvlp", {"mode": "finetune"}, "is for models of transformers (hf:), not for cvlp: leave it out"),
    ],
)
def test_adapters(name: str, fields: dict[str, object], said: str) -> None:
    refuses(lambda: check_resolved(spec(train={"lora_rank": 8}, **fields), card(name)), said)
    check_resolved(spec(train={"lora_rank": 0}, **fields), card(name))


def test_adapters_need_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    asked = spec(train={"lora_rank": 8})
    refuses(
        lambda: check_resolved(asked, card("llava")), "needs peft, which is not installed: pip install 'vlbench[lora]'"
    )


@pytest.mark.parametrize("flag", [{"device_map": "auto"}, {"quantize": "4bit"}])
@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("fake", PLACED, "is for generative models of transformers (hf:), in --mode zero-shot or eval, not for fake"),
        ("CLIPModel", PLACED | {"answer_by": None}, "not for CLIPModel in --mode zero-shot: leave it out"),
        ("llava", PLACED | {"mode": "finetune"}, "not for llava in --mode finetune"),
        ("llava", PLACED | {"mode": "probe", "answer_by": None}, "not for llava in --mode probe"),
        ("llava", PLACED | {"checkpoint": "runs/x"}, "not for --checkpoint runs/x: leave one out"),
    ],
)
def test_placing(flag: dict[str, str], name: str, fields: dict[str, object], said: str) -> None:
    refuses(lambda: check_resolved(spec(**fields, **flag), card(name)), said)
    check_resolved(spec(**fields), card(name))


def test_devices_are_chosen_once() -> None:
    asked = spec(**PLACED, device_map="auto", device="cuda")
    refuses(lambda: check_resolved(asked, card("llava")), "--device-map auto chooses devices, and --device cuda too")


def test_rounding_needs_its_library_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spec(**PLACED, quantize="8bit", device="cpu")
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    refuses(lambda: check_resolved(asked, card("llava")), "--quantize 8bit needs bitsandbytes, which is not installed")
    monkeypatch.setattr(options, "find_spec", lambda name: INSTALLED)
    refuses(lambda: check_resolved(asked, card("llava")), "--quantize 8bit needs a CUDA GPU")


@pytest.mark.parametrize(
    ("name", "own_code", "trusted", "said"),
    [
        ("llava", True, False, "comes with code of its own (auto_map in its config.json)"),
        ("llava", True, True, ""),
        ("llava", False, True, ""),
        ("cvlp", False, True, "--trust-remote-code is for models of transformers (hf:), not for cvlp"),
    ],
)
def test_own_code(name: str, own_code: bool, trusted: bool, said: str) -> None:
    one = card(name).model_copy(update={"own_code": own_code})
    refuses(lambda: check_own_code(spec(trust_remote_code=trusted), one), said)


def refuses(check: Callable[[], None], said: str) -> None:
    if not said:
        return check()
    with pytest.raises(VlbenchError) as caught:
        check()
    assert said in caught.value.message
    return None


def test_a_run_is_refused_before_its_data_is_read(
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
    ("train", "fields", "said"),
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
def test_live_batch_norms(train: dict[str, object], fields: dict[str, object], said: str) -> None:
    refuses(lambda: check_resolved(spec(train=train, **fields), card("cvlp")), said)


def captions(*images: str) -> list[Example[Caption]]:
    return [Example(str(n), Query((), ""), Caption(image), image) for n, image in enumerate(images)]


@pytest.mark.parametrize(
    ("model", "size", "images", "mode", "said"),
    [
        ("brivl", 2, "aab", "finetune", ""),
        ("brivl", 1, "aab", "finetune", "and --batch-size 1 leaves one image alone: give 2 or more"),
        ("brivl", 8, "aaa", "finetune", "and all texts of train belong to one image: train on more images"),
        ("brivl", 1, "a", "eval", ""),
        ("cvlp", 1, "aab", "finetune", ""),  # looks at pairs, and draws their negatives
        ("CLIPModel", 1, "ab", "finetune", "CLIPModel learns coco_retrieval by contrasting the images of an optimizer"),
    ],
)
def test_two_towers_need_negatives(model: str, size: int, images: str, mode: str, said: str) -> None:
    task = catalog.task_card("coco_retrieval", None)
    asked = spec(mode=mode, train={"batch_size": size}, train_split="train")
    kind = evaluator_for(asked, card(model), task)
    assert isinstance(kind, EvaluatorKind)
    refuses(lambda: check_negatives(asked, task, card(model), kind, captions(*images)), said)
