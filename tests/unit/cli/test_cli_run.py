"""From flags to the runs that they ask for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlbench.cli.run import _run_in_process, make_runs, make_specs
from vlbench.core.progress import Silent
from vlbench.core.spec import RunSpec
from vlbench.records.folder import RunFolder

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


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "4097", ""])
def test_jobs_that_cannot_be(asked: str, vlbench: Any) -> None:
    done = vlbench("run", "--task", "nlvr2", "--model", "cvlp", "--jobs", asked)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"vlbench: --jobs is {asked!r}: expected a number from 1 to 4,096, or auto\n"


def test_jobs_of_processes_that_share_a_run(vlbench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = vlbench("run", "--task", "nlvr2", "--model", "cvlp", "--jobs", 2, "--num-processes", 2)
    assert done.code == 2 and "--jobs 2 is not for runs that share several processes" in done.err
    monkeypatch.setenv("VLBENCH_JOBS", "none")
    done = vlbench("run", "--task", "nlvr2", "--model", "cvlp")
    assert done.code == 2 and "$VLBENCH_JOBS is 'none'" in done.err


def test_a_run_in_a_process_of_its_own_names_its_folder_as_the_user_does(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(Path("runs") / "nlvr2")
    monkeypatch.setattr("vlbench.engine.evaluate.run", lambda *_: (SimpleNamespace(status="done"), folder))
    spec = RunSpec(task="nlvr2", model="fake", output_path=Path("runs"))
    assert _run_in_process(Silent(), spec, 1, 0) == str(folder.path)


def test_jobs_are_no_field_of_a_spec(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("jobs: 3\n")
    flags = {"task": "nlvr2", "model": "cvlp"}
    assert make_runs(flags, tmp_path / "run.yaml") == (make_specs(flags), 3)
    assert make_runs(flags, None, ["jobs=auto"])[1] == "auto"
    assert make_runs(flags)[1] is None
