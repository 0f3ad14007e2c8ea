"""What a run is asked to do, and the same with every default decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vlbench.core.cards import Recipe
from vlbench.core.spec import PretrainSpec, ResolvedSpec, RunSpec, resolve

DECIDED: dict[str, Any] = {
    "size": "tiny", "checkpoint": "none", "train_split": ("train", "val"), "select_on": "dev", "split": "test-p",
    "controls": ("blind",), "workers": 2, "eval_batch_size": 256, "train": Recipe(lr=1e-3, steps=5),
    "select_limit": None, "answer_by": None,
}  # fmt: skip
SPEC = RunSpec(task="nlvr2", model="cvlp", seed=3, limit=40, data_root=Path("x"), log_with=("wandb",))


def test_a_resolved_spec_holds_what_was_asked_and_what_was_decided() -> None:
    spec = resolve(SPEC, **DECIDED)
    assert {name: getattr(spec, name) for name in DECIDED} == DECIDED
    assert {name: value for name, value in dict(spec).items() if name not in DECIDED} == {
        name: value for name, value in dict(SPEC).items() if name not in DECIDED
    }


def test_a_resolved_spec_is_recorded_as_a_run_spec() -> None:
    """The same fields in the same order, so that records and fingerprints do not change."""
    spec = resolve(SPEC, **DECIDED)
    assert list(ResolvedSpec.model_fields) == list(RunSpec.model_fields)
    plain = spec.to_run_spec()
    assert type(plain) is RunSpec
    assert plain == SPEC.model_copy(update=DECIDED)
    assert plain.model_dump_json() == spec.model_dump_json()
    assert spec.model_copy(update={"size": "base"}).size == "base"


@pytest.mark.parametrize(
    "name", ["size", "checkpoint", "train_split", "select_on", "split", "controls", "eval_batch_size"]
)
def test_what_is_decided_is_never_none(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        resolve(SPEC, **{**DECIDED, name: None})
    assert "null" not in str(ResolvedSpec.model_json_schema()["properties"][name])


def test_texts_stand_for_lists_as_on_the_command_line() -> None:
    run = RunSpec.model_validate({"task": "a", "model": "b", "controls": "none", "log_with": "wandb, tensorboard"})
    assert (run.controls, run.log_with) == ((), ("wandb", "tensorboard"))
    pretraining = PretrainSpec.model_validate({"model": "b", "task": "gqa,vqa2", "texts": "a.json", "init": "text=x"})
    assert (pretraining.task, pretraining.texts) == (("gqa", "vqa2"), (Path("a.json"),))
    assert pretraining.init == {"text": "x"}
