"""`vlbench run` from the command line to the record: what it writes, when it does nothing, what is another run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
import torch
import yaml

import vlbench as package
from vlbench.core.cards import Recipe
from vlbench.core.record import RunRecord
from vlbench.engine.evaluate import run
from vlbench.records.folder import read_run

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "run.schema.json"
Predictions = Callable[[Path], pd.DataFrame]
Call = Callable[..., Any]

both_models = pytest.mark.parametrize("model", ["fake", "cvlp"])


def times(folder: Path) -> dict[str, int]:
    """When each file of a run was last written; the lock tells nothing."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.stat().st_mtime_ns for path in files}


def numbers(record: RunRecord) -> tuple[object, ...]:
    """What must not differ between two runs of one spec."""
    return record.fingerprint, record.results, record.controls, record.train, record.model, record.task


@both_models
def test_a_run_leaves_its_record(model: str, vlbench: Call, quick: list[object], predictions: Predictions) -> None:
    done = vlbench(*quick, "--model", model)
    assert (done.code, done.err) == (0, "")
    values = json.loads((done.run / "run.json").read_text(encoding="utf8"))
    jsonschema.validate(values, json.loads(SCHEMA.read_text(encoding="utf8")))
    assert (values["status"], values["task"]["source"], values["model"]["size"]) == ("done", "world", "tiny")
    counts = {"expected": 96, "scored": 96, "missing": 0, "duplicate": 0, "unparsed": 0, "errors": 0}
    assert values["coverage"] == counts
    rows = predictions(done.run)
    assert (len(rows), rows["example_id"].nunique()) == (96, 96)
    assert set(rows["prediction"]) <= {"False", "True"}
    assert rows["score"].mean() * 100 == pytest.approx(values["results"][0]["value"])
    assert [line["step"] for line in lines(done.run) if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines(done.run) if "selection" in line] == [2, 2, 4, 4]
    assert (done.run / "checkpoints" / "best" / "model.safetensors").is_file()
    assert not (done.run / "checkpoints" / "last").exists()
    assert f"{values['results'][0]['value']:.2f}" in done.out


def lines(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf8").splitlines()]


def test_a_finished_run_is_not_done_again(vlbench: Call, quick: list[object]) -> None:
    first = vlbench(*quick, "--model", "fake")
    before = times(first.run)
    again = vlbench(*[part for part in quick if part != "--quiet"], "--model", "fake")
    assert (again.code, again.out) == (0, first.out)
    assert again.err == "already done: this is the record of that run\n"
    assert times(first.run) == before


def test_no_resume_does_it_again(vlbench: Call, quick: list[object]) -> None:
    first = vlbench(*quick, "--model", "fake")
    before = times(first.run)
    again = vlbench(*quick, "--model", "fake", "--no-resume")
    assert again.run == first.run
    after = times(first.run)
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in before)


@pytest.mark.parametrize(
    "change",
    [("--seed", 1), ("--steps", 5), ("--lr", 0.01), ("--select-on", "none"), ("--limit", 10), ("--controls", "blind")],
    ids=lambda change: change[0],
)
def test_another_meaning_is_another_run(change: tuple[str, object], vlbench: Call, quick: list[object]) -> None:
    first, other = vlbench(*quick, "--model", "fake"), vlbench(*quick, "--model", "fake", *change)
    assert other.code == 0
    assert other.run.parent == first.run.parent
    assert other.run != first.run


@pytest.mark.parametrize("changed", ["annotation", "picture", "features"])
def test_changed_data_is_another_run(
    changed: str, vlbench: Call, quick: list[object], tiny_world: Path, tmp_path: Path
) -> None:
    world = tmp_path / "world"
    shutil.copytree(tiny_world, world)
    command = [*quick, "--model", "fake", "--data-root", world]
    first = vlbench(*command)
    assert vlbench(*quick, "--model", "fake").run == first.run  # where the data lies does not count
    files = {
        "annotation": world / "nlvr2" / "data" / "test1.json",
        "picture": next((world / "nlvr2" / "images" / "test1").iterdir()),
        "features": world / "nlvr2" / "features" / "test1.tsv",
    }
    size = files["features"].stat().st_size
    if changed == "features":  # other numbers, and not a byte more
        rows = files[changed].read_bytes().splitlines(keepends=True)
        files[changed].write_bytes(b"".join(reversed(rows)))
    else:
        files[changed].write_bytes(files[changed].read_bytes() + b"\n")
    assert files["features"].stat().st_size == size
    assert vlbench(*command).run != first.run


def test_flags_yaml_settings_and_python_mean_the_same(
    vlbench: Call, quick: list[object], tiny_world: Path, tmp_path: Path
) -> None:
    flags = vlbench(*quick, "--model", "fake", "--seed", 3, "--limit", 40)
    values = {
        "task": "nlvr2",
        "model": "fake",
        "data_root": str(tiny_world),
        "output_path": str(tmp_path / "runs"),
        "seed": 3,
        "limit": 40,
        "controls": [],
        "train": {"steps": 4, "batch_size": 8, "evaluations": 2},
    }
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf8")
    overruled = tmp_path / "other.yaml"
    overruled.write_text(yaml.safe_dump({**values, "seed": 9, "train": {"steps": 7}}), encoding="utf8")
    settings = ("--set", "train.steps=4", "--set", "train.batch_size=8", "--set", "train.evaluations=2")
    same = [
        vlbench("run", "--config", config),
        vlbench("run", "--config", overruled, "--seed", 3, *settings),
        vlbench("run", "--set", f"data_root={tiny_world}", "--set", f"output-path={tmp_path / 'runs'}", *settings,
                "--set", "task=nlvr2", "--set", "model=fake", "--set", "seed=3", "--set", "limit=40", "--set",
                "controls=[]"),
        vlbench("run", "--config", flags.run / "config.yaml"),
    ]  # fmt: skip
    assert {done.run for done in same} == {flags.run}
    record = package.evaluate(
        package.RunSpec(
            task="nlvr2", model="fake", data_root=tiny_world, output_path=tmp_path / "runs", seed=3, limit=40,
            controls=(), train=Recipe(steps=4, batch_size=8, evaluations=2),
        )
    )  # fmt: skip
    assert record == read_run(flags.run)


@both_models
def test_the_seed_decides(
    model: str, vlbench: Call, quick: list[object], tmp_path: Path, predictions: Predictions
) -> None:
    command = [*quick, "--model", model, "--controls", "blind"]
    one = vlbench(*command, "--output-path", tmp_path / "one")
    two = vlbench(*command, "--output-path", tmp_path / "two")
    assert one.run != two.run
    pd.testing.assert_frame_equal(predictions(one.run), predictions(two.run), check_exact=True)
    assert numbers(read_run(one.run)) == numbers(read_run(two.run))
    other = vlbench(*command, "--seed", 1)
    assert not predictions(other.run)["confidence"].equals(predictions(one.run)["confidence"])


def test_a_blind_model_is_at_exactly_one_half(vlbench: Call, quick: list[object], predictions: Predictions) -> None:
    done = vlbench(*quick, "--model", "cvlp", "--controls", "blind", "--set", "train.lr=0.002", "--steps", 12)
    record = read_run(done.run)
    assert (record.controls["blind"][0].metric, record.controls["blind"][0].value) == ("accuracy", 50.0)
    rows = predictions(done.run)
    assert rows.groupby("control").size().to_dict() == {"": 96, "blind": 96}
    blind = rows[rows["control"] == "blind"]
    # Its answer depends on the statement alone, and it has learnt: not every statement gets the same probability.
    assert blind.groupby("text")["confidence"].nunique().eq(1).all()
    assert blind["confidence"].nunique() > 1
    assert "50.00" in done.out


def test_the_threads_of_a_run_are_its_own(vlbench: Call, quick: list[object]) -> None:
    """The next run of the process may have none given, and computes with all."""
    threads = torch.get_num_threads()
    assert vlbench(*quick, "--model", "fake", "--threads", threads + 1).code == 0
    assert torch.get_num_threads() == threads


def test_a_limit_shows_in_record_and_table(vlbench: Call, quick: list[object], predictions: Predictions) -> None:
    done = vlbench(*quick, "--model", "fake", "--limit", "0.25")
    task = read_run(done.run).task
    assert (task.n_total, task.n_scored, task.limit) == (96, 24, 0.25)
    assert "limit 0.25: 24 of 96 examples, chosen at random" in done.out
    some = predictions(done.run)["example_id"].tolist()
    first = vlbench(*quick, "--model", "fake", "--limit", 24, "--limit-mode", "head")
    assert "limit 24: 24 of 96 examples, the first ones" in first.out
    everything = predictions(vlbench(*quick, "--model", "fake").run)["example_id"].tolist()
    assert predictions(first.run)["example_id"].tolist() == everything[:24]
    assert some == [name for name in everything if name in set(some)] != everything[:24]


def test_the_world_is_named_where_no_data_is_given(
    vlbench: Call, quick: list[object], tiny_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlbench.engine.source.ensure_world", lambda *_, **__: tiny_world)
    command = [part for part in quick if part not in ("--quiet", "--data-root", tiny_world)]
    done = vlbench(*command, "--model", "fake")
    assert "no --data-root: using the built-in world (plain)" in done.err.splitlines()
    assert "built-in world" in done.out


def test_environment_names_the_data(
    vlbench: Call, quick: list[object], tiny_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLBENCH_DATA", os.fspath(tiny_world))
    command = [part for part in quick if part not in ("--data-root", tiny_world)]
    assert vlbench(*command, "--model", "fake").run == vlbench(*quick, "--model", "fake").run


def test_python_gets_what_the_command_line_writes(quick: list[object], vlbench: Call) -> None:
    done = vlbench(*quick, "--model", "fake")
    spec = read_run(done.run).spec
    record, folder = run(spec)
    assert (folder.path, record.status) == (done.run, "done")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--select-on", "test-p"), "--split test-p shares 8 examples with 'test-p'"),
        (("--train-split", "test-p"), "--split test-p shares 8 examples with 'test-p'"),
        (("--select-on", "dev", "--split", "balanced-dev"), "--split balanced-dev shares 4 examples with 'dev'"),
    ],
)
def test_what_is_reported_was_not_selected_on(
    arguments: tuple[str, ...], said: str, vlbench: Call, small_nlvr2: Path, tmp_path: Path
) -> None:
    dev = (small_nlvr2 / "data" / "dev.json").read_text(encoding="utf8").splitlines(keepends=True)
    balanced = small_nlvr2 / "data" / "balanced" / "balanced_dev.json"
    balanced.parent.mkdir()
    balanced.write_text("".join(dev[:4]), encoding="utf8")
    done = vlbench(
        "run", "--task", "nlvr2", "--model", "fake", "--data-root", small_nlvr2, "--allow-partial",
        "--output-path", tmp_path / "runs", *arguments,
    )  # fmt: skip
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not (tmp_path / "runs").exists()


def test_a_partial_data_set_shows_in_record_and_table(vlbench: Call, small_nlvr2: Path, tmp_path: Path) -> None:
    command = ["run", "--task", "nlvr2", "--model", "fake", "--data-root", small_nlvr2, "--output-path", tmp_path / "r"]
    refused = vlbench(*command)
    assert refused.code == 5
    assert "holds 8 examples where 86,373 are expected" in refused.err
    accepted = vlbench(*command, "--allow-partial")
    assert accepted.code == 0
    assert "note: split 'test-p' of nlvr2 holds 8 examples where 6,967 are expected" in accepted.out
    assert len(read_run(accepted.run).task.notes) == 3
    assert "TRAINED FROM SCRATCH" in accepted.out  # on real data the size is the paper's


def test_several_seeds_are_several_rows(vlbench: Any, quick: list[object]) -> None:
    done = vlbench(*quick, "--model", "fake", "--seeds", "0,1")
    assert done.code == 0, done.err
    assert [line.split("|")[1].strip() for line in done.out.splitlines() if line.startswith("| fake")] == [
        "fake-tiny, seed 0",
        "fake-tiny, seed 1",
    ]
