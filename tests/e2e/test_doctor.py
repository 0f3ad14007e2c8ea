"""The doctor passes correct models and names the faults of models that were broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import vlbench.models
from vlbench import catalog
from vlbench.core.cards import ModelCard, Recipe
from vlbench.engine.doctor import examine as examining
from vlbench.engine.job import Job, plan
from vlbench.heads.classify import ClassifyHead

Call = Callable[..., Any]

MODELS = """
import os
from torch import nn
from torch.nn.utils.rnn import pad_sequence
import torch
from vlbench.core.backbone import Features
from vlbench.models.fake.backbone import Fake

class Sound(Fake):
    pass

class Mixing(Fake):
    def fuse(self, seen, read):
        made = super().fuse(seen, read)
        return Features(made.pooled + made.pooled.mean(dim=0), made.text, made.visual, made.text_mask, made.visual_mask)

class Ordered(Fake):
    def fuse(self, seen, read):
        made = super().fuse(seen, read)
        sums = made.pooled.cumsum(dim=0)
        return Features(sums, made.text, made.visual, made.text_mask, made.visual_mask)

class Padded(Fake):
    def prepare_texts(self, texts):
        lengths = torch.tensor([float(max(40, *(len(text.split()) for text in texts)))] * len(texts))
        return super().prepare_texts(texts) | {"length": lengths}

    def read(self, texts):
        made = super().read(texts)
        return type(made)(made.states * texts["length"][:, None, None] / 40, made.mask)

class Coarse(Fake):
    def fuse(self, seen, read):
        made = super().fuse(seen, read)
        large = nn.functional.linear(made.pooled, torch.eye(self.width)) + 3000.0
        pooled = nn.functional.linear(large, torch.eye(self.width)) - 3000.0
        return Features(pooled, made.text, made.visual, made.text_mask, made.visual_mask)

class Careless(Fake):
    def fuse(self, seen, read):
        made = super().fuse(seen, read)
        return Features(made.pooled * 0 + self.bias, made.text, made.visual, made.text_mask, made.visual_mask)

class Placed(Fake):
    def fuse(self, seen, read):
        made = super().fuse(seen, read)
        pooled = made.pooled * (1 + int(os.environ.get("RANK", "0")))
        return Features(pooled, made.text, made.visual, made.text_mask, made.visual_mask)

class Blind(Fake):
    def see(self, images, slot):
        return super().see({"hash": torch.ones_like(images["hash"])}, slot)
"""


@pytest.fixture
def doctor(vlbench: Call, tiny_world: Path, tmp_path: Path) -> Call:
    """Examine one of the models above, or a model by its name, on NLVR2 of the tiny world."""
    card = Path(vlbench_models()) / "fake" / "model.yaml"
    (tmp_path / "model.yaml").write_text(card.read_text().replace("visual: none", "visual: patches"))
    (tmp_path / "model.py").write_text(MODELS)

    def examine(model: str, *arguments: object) -> tuple[int, dict[str, Any], str]:
        name = f"{tmp_path / 'model.py'}:{model}" if model[0].isupper() else model
        done = vlbench(
            "doctor", "--model", name, "--task", "nlvr2", "--data-root", tiny_world, "--json", "--examples", 24,
            "--device", "cpu",
            *(arguments if "--processes" in arguments else (*arguments, "--no-processes")),
        )  # fmt: skip
        return done.code, json.loads(done.out), done.err

    return examine


def vlbench_models() -> str:
    return next(iter(vlbench.models.__path__))


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in found["checks"]}


def test_a_correct_model_passes(doctor: Call) -> None:
    code, found, err = doctor("cvlp", "--size", "tiny", "--steps", 120, "--examples", 48)
    assert (code, err, found["verdict"]) == (0, "", "ok")
    assert found["weights"]["matched"] > 100
    assert set(statuses(found).values()) == {"ok"}
    assert len(statuses(found)) == len(found["checks"]) >= 8
    assert all(check["n"] for check in found["checks"] if check["verdict"] == "ok" and check["tolerance"])


def test_images_are_not_exchanged_for_a_model_without_images(doctor: Call) -> None:
    code, found, _ = doctor("fake", "--steps", 0)
    assert (code, statuses(found)["pictures"]) == (0, "skipped")


def test_a_recipe_may_train_on_the_reported_split(doctor: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViLT's and SOHO's recipes for VQA v2 train on val, which holds minival, the split reported by default."""
    real = catalog.model_card

    def card(name: str) -> ModelCard:
        on_test = Recipe(train_splits=("train", "test-p"))
        return real(name).model_copy(update={"recipes": {**real(name).recipes, "nlvr2": on_test}})

    monkeypatch.setattr(catalog, "model_card", card)
    code, found, err = doctor("fake", "--steps", 0, "--no-processes")
    assert (code, found["verdict"], err) == (0, "ok", "")


@pytest.mark.parametrize(
    ("model", "faults"),
    [
        ("Sound", set()),
        ("Mixing", {"batch size", "order", "padding"}),
        ("Ordered", {"batch size", "order"}),
        ("Padded", {"padding"}),
        ("Coarse", {"bfloat16"}),
        ("Careless", {"pictures", "texts"}),
        ("Blind", {"pictures"}),
    ],
)
def test_faults_are_named(model: str, faults: set[str], doctor: Call) -> None:
    code, found, err = doctor(model, "--steps", 0)
    broken = {name for name, verdict in statuses(found).items() if verdict == "broken"}
    assert broken == faults
    assert (code, found["verdict"]) == ((12, "broken") if faults else (0, "ok"))
    if faults:
        assert err.count("\n") == 1 and all(name in err for name in faults)


def test_a_model_that_cannot_learn_is_caught(doctor: Call) -> None:
    code, found, _ = doctor("Careless", "--steps", 100)
    assert (code, statuses(found)["overfit-32"]) == (12, "broken")


def test_too_few_steps_are_inconclusive(doctor: Call) -> None:
    _, found, _ = doctor("Careless", "--steps", 20)
    assert statuses(found)["overfit-32"] == "skipped"


def test_a_head_that_leaks_is_caught(doctor: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head keeps the references that it gets for training, and answers with them."""
    targets, forward, kept = ClassifyHead.targets, ClassifyHead.forward, []

    def spying(self: ClassifyHead, examples: Any) -> torch.Tensor:
        answers = targets(self, examples)
        kept.append(answers)
        return answers

    def telling(self: ClassifyHead, features: Any) -> torch.Tensor:
        logits = forward(self, features)
        known = kept.pop(0) if kept else torch.zeros(len(logits), dtype=torch.int64)
        return logits + 20 * torch.nn.functional.one_hot(known, logits.shape[1])

    monkeypatch.setattr(ClassifyHead, "targets", spying)
    monkeypatch.setattr(ClassifyHead, "forward", telling)
    code, found, _ = doctor("Sound", "--steps", 1, "--examples", 48)
    assert (code, statuses(found)["shuffled labels"]) == (12, "broken")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[Any]], list[Any]]], None]:
    """Restrict the doctor to some of the examples."""

    def see(keep: Callable[[list[Any]], list[Any]]) -> None:
        def planned(spec: Any, progress: Any) -> Job:
            job = plan(spec, progress)
            return replace(job, train=keep(list(job.train)), report=keep(list(job.report)))

        monkeypatch.setattr(examining, "plan", planned)

    return see


def test_examples_of_one_group_are_still_different(doctor: Call, only: Any) -> None:
    only(lambda examples: [replace(one, group="all") for one in examples])
    code, found, _ = doctor("Sound", "--steps", 0)
    assert (code, statuses(found)["pictures"], statuses(found)["texts"]) == (0, "ok", "ok")
    assert {check["n"] for check in found["checks"]} == {24}


@pytest.mark.parametrize("task", ["nlvr2", "coco_retrieval"])
def test_a_single_image_cannot_be_exchanged(task: str, vlbench: Call, tiny_world: Path, only: Any) -> None:
    only(lambda examples: [one for one in examples if one.query.images == examples[0].query.images])
    done = vlbench("doctor", "--model", "cvlp", "--size", "tiny", "--task", task, "--data-root", tiny_world, "--json",
                   "--steps", 2, "--no-processes", "--device", "cpu")  # fmt: skip
    found = statuses(json.loads(done.out))
    assert found["pictures"] == "skipped" and "broken" not in found.values(), done.out
    assert found["shuffled labels"] == "skipped"


@pytest.mark.slow
@pytest.mark.parametrize(("model", "verdict"), [("Sound", "ok"), ("Placed", "broken")])
def test_two_processes(model: str, verdict: str, doctor: Call) -> None:
    _, found, _ = doctor(model, "--steps", 0, "--processes")
    (check,) = (check for check in found["checks"] if check["name"] == "processes")
    assert (check["verdict"], check["n"], check["tolerance"]) == (verdict, 24, 0.0), check


def test_only_the_machine(vlbench: Call) -> None:
    done = vlbench("doctor", "--json")
    machine = json.loads(done.out)["machine"]
    assert (done.code, json.loads(done.out)["checks"]) == (0, [])
    assert machine["libraries"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert machine["cores"] >= 1
    assert set(machine["extras"]) | set(machine["missing"]) == {"gpu", "track", "dev"}
    shown = vlbench("doctor")
    assert shown.code == 0 and all(name in shown.out for name in ("python", "cache", "memory", "extras"))


def test_model_and_task_are_given_together(vlbench: Call) -> None:
    done = vlbench("doctor", "--model", "fake")
    assert done.code == 2 and "--task is missing" in done.err


def test_the_text_output(vlbench: Call, tiny_world: Path) -> None:
    done = vlbench("doctor", "--model", "fake", "--task", "coco_retrieval", "--data-root", tiny_world, "--steps", 0,
                   "--no-processes")  # fmt: skip
    assert done.code == 0, done.err
    assert "fake-tiny on coco_retrieval (world)" in done.out and "weights: none, from scratch" in done.out
    assert [line.split("  ")[0] for line in done.out.splitlines()].count("batch size") == 1


def test_models_of_transformers(doctor: Call, make_hf: Any, make_vlm: Any) -> None:
    """A classifier and a generative model."""
    for folder in (make_hf("ViltForQuestionAnswering"), make_vlm("qwen2_vl").folder):
        code, found, err = doctor(f"hf:{folder}", "--steps", 2)
        assert code in (0, 12), err
        assert [statuses(found)[name] for name in ("batch size", "order", "padding")] == ["ok"] * 3, found["checks"]
