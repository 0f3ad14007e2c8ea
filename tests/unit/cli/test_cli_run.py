"""From flags to the runs that they ask for."""

from __future__ import annotations

from typing import Any

import pytest

from vlbench.cli.run import make_specs

NAMES = {"task": "nlvr2,gqa", "model": "cvlp,vilt"}


def test_a_run_for_each_seed_model_and_task() -> None:
    specs = make_specs(NAMES | {"seeds": "3,1"})
    assert [(spec.seed, spec.model, spec.task) for spec in specs] == [
        (seed, model, task) for seed in (3, 1) for model in ("cvlp", "vilt") for task in ("nlvr2", "gqa")
    ]


def test_a_checkpoint_names_the_place_of_each_run() -> None:
    specs = make_specs(NAMES | {"checkpoint": "heads/{task}/{model}-tiny"})
    assert [spec.checkpoint for spec in specs] == [
        f"heads/{task}/{model}-tiny" for model in ("cvlp", "vilt") for task in ("nlvr2", "gqa")
    ]


@pytest.mark.parametrize(
    ("asked", "found"), [(None, None), ("none", ()), ("blind", ("blind",)), (["blind"], ("blind",))]
)
def test_controls_by_name(asked: object, found: tuple[str, ...] | None) -> None:
    (spec,) = make_specs({"task": "nlvr2", "model": "cvlp", "controls": asked})
    assert spec.controls == found


@pytest.mark.parametrize("asked", [("--seeds", "0,x"), ("--seed", 1, "--seeds", "0,1")])
def test_seeds_that_cannot_be(asked: tuple[object, ...], vlbench: Any) -> None:
    done = vlbench("run", "--task", "nlvr2", "--model", "cvlp", *asked)
    assert done.code == 2 and "--seeds" in done.err
