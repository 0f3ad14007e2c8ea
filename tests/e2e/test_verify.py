"""`vlbench verify`: what samples do not give is found, and so is every edit that the seal knows of."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

Call = Callable[..., Any]
Values = dict[str, Any]
Change = Callable[[Values], object]
KINDS = {
    "classify": ("--task", "nlvr2", "--controls", "blind", "--limit", 40),
    "rank": ("--task", "coco_retrieval", "--controls", "none"),
    "generate": ("--task", "vqa2", "--mode", "zero-shot", "--controls", "none"),
}


@pytest.fixture(scope="module")
def made(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of the fake model of each kind; not to be changed."""
    from vlbench.cli.main import main

    folders = {}
    for kind, arguments in KINDS.items():
        runs = tmp_path_factory.mktemp(kind)
        more = ("--model", "fake", "--steps", 1, "--data-root", tiny_world, "--output-path", runs, "--quiet")
        assert main([str(argument) for argument in ("run", *arguments, *more)]) == 0
        (record,) = runs.rglob("run.json")
        folders[kind] = record.parent
    return folders


@pytest.fixture
def copy(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies the run of a kind, for a test to change."""
    return lambda kind: Path(shutil.copytree(made[kind], tmp_path / kind))


@pytest.fixture
def states(vlbench: Call) -> Callable[..., list[tuple[str, str]]]:
    """State and reason of each record; the exit code must say whether one is broken."""

    def call(*arguments: object) -> list[tuple[str, str]]:
        done = vlbench("verify", *arguments, "--json")
        found = [(entry["state"], entry["why"]) for entry in json.loads(done.out)["records"]]
        assert done.code == (5 if "broken" in dict(found) else 0), done.err
        return found

    return call


def rewrite(run: Path, change: Change) -> None:
    """Change the record without sealing it again."""
    path = run / "run.json"
    values = json.loads(path.read_text(encoding="utf8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf8")


def rewrite_table(file: Path, column: str, value: object) -> None:
    rows = pd.read_parquet(file)
    rows.loc[0, column] = value
    rows.to_parquet(file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_runs_of_every_kind_are_recomputed_without_their_data(
    vlbench: Call, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "empty"))
    done = vlbench("verify", *made.values())
    lines = [f"recomputed {run / 'run.json'}" for run in made.values()]
    assert (done.code, done.out.splitlines()) == (0, [*lines, "3 records: 3 recomputed"])
    assert not (tmp_path / "empty").exists()


def first(values: Values) -> Values:
    return next(result for result in values["results"] if result["metric"] == values["task"]["main_metric"])


RESEALED: dict[str, tuple[str, Change, str]] = {
    "value": ("classify", lambda values: first(values).update(value=99.9), "accuracy .* the record has 99.9"),
    "interval": ("classify", lambda values: first(values).update(ci95=[1.0, 2.0]), "the record has .*1.0000, 2.0000"),
    "no interval": ("generate", lambda values: first(values).update(ci95=None), "vqa_accuracy"),
    "examples": ("generate", lambda values: first(values).update(n=9), r"n 112.* the record has .*n 9\)"),
    "slice": (
        "classify",
        lambda values: next(iter(first(values)["slices"]["kind"].values())).update(value=1.0),
        "accuracy of kind",
    ),
    "slice removed": ("classify", lambda values: first(values)["slices"]["kind"].popitem(), "other slices of kind"),
    "control": ("classify", lambda values: values["controls"]["blind"][0].update(value=0.0), "blind accuracy"),
    "recall": ("rank", lambda values: values["results"][0].update(value=100.0), "the record has 100.0"),
    "metric": ("rank", lambda values: values["results"][0].update(metric="charm"), "charm is not among them"),
    "unsealed": ("classify", lambda values: first(values).update(value=99.9), "accuracy .* the record has 99.9"),
}


@pytest.mark.parametrize("edit", RESEALED)
def test_scores_that_samples_do_not_give_are_broken(
    states: Call, vlbench: Call, copy: Callable[[str], Path], edit_record: Call, tmp_path: Path, edit: str
) -> None:
    """Whoever seals a record again has its samples against him."""
    kind, change, says = RESEALED[edit]
    run = copy(kind)
    edit_record(run, change)
    if edit == "unsealed":
        rewrite(run, lambda values: values.update(files={}, seal=""))
    ((state, why),) = states(run)
    assert state == "broken" and re.search(f"^its samples give other scores: .*{says}", why), why
    judged = vlbench("gate", run, "--baseline", tmp_path / "b.json", "--update-baseline", "--reason", "x")
    assert judged.code == 5 and f"{run / 'run.json'} is broken" in judged.err and "--no-resume" in judged.err


def test_a_lack_of_memory_does_not_break_a_record(
    vlbench: Call, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> object:
        raise MemoryError("Unable to allocate 1 GiB")

    monkeypatch.setattr("vlbench.engine.verify.score", full)
    assert vlbench("verify", copy("classify")).code == 9


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "prediction": ("classify", lambda run: rewrite_table(run / "samples.parquet", "prediction", "True!"), "samples"),
    "rank": ("rank", lambda run: rewrite_table(run / "ranks.parquet", "rank_low", 0), "ranks"),
    "truncated samples": ("generate", lambda run: cut(run / "samples.parquet"), "samples"),
    "truncated ranks": ("rank", lambda run: cut(run / "ranks.parquet"), "ranks"),
    "no ranks": ("rank", lambda run: (run / "ranks.parquet").unlink(), "ranks"),
    "no samples": ("rank", lambda run: (run / "samples.parquet").unlink(), "samples"),
}


@pytest.mark.parametrize("fault", FILES)
def test_files_that_the_run_did_not_write_are_found(
    states: Call, vlbench: Call, copy: Callable[[str], Path], fault: str
) -> None:
    kind, damage, file = FILES[fault]
    run = copy(kind)
    damage(run)
    assert states(run) == [("broken", f"{file}.parquet: missing, or not as the run wrote it")]
    if fault in ("prediction", "rank"):
        for command in (("compare", run, run), ("report", run)):
            done = vlbench(*command)
            assert done.code == 5 and f"{file}.parquet is not the file that the run wrote" in done.err, command


def test_samples_of_another_run_are_found(
    states: Call, vlbench: Call, copy: Callable[[str], Path], fake_run: Path
) -> None:
    run = copy("classify")
    shutil.copy(fake_run / "samples.parquet", run)
    assert states(run) == [("broken", "samples.parquet: missing, or not as the run wrote it")]
    for command in (("show", run), ("report", run), ("compare", run, fake_run), ("submit", run, "--to", "nlvr2")):
        done = vlbench(*command)
        assert done.code in (2, 5) and not done.out, command
        assert done.code == 2 or "samples.parquet is not the file that the run wrote" in done.err, command


def test_a_copy_of_a_record_alone_has_only_its_seal(
    states: Call, vlbench: Call, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copy(copy("rank") / "run.json", copies / "rank.json")
    shutil.copy(copy("classify") / "run.json", copies / "run.json")
    assert states(copies / "rank.json", copies / "run.json") == [("sealed", "no samples beside it")] * 2
    assert "seal" not in vlbench("leaderboard", copies / "rank.json").out
    edited = copies / "rank.json"
    edited.write_text(edited.read_text().replace('"status": "done"', '"status": "failed"'))
    ((state, why),) = states(edited)
    assert state == "broken" and why.startswith("is corrupt (its content does not fit its seal")
    done = vlbench("verify", copies / "run.json", edited)
    assert done.code == 5 and done.out.splitlines()[-1] == "2 records: 1 broken, 1 sealed"


def test_records_without_a_seal_are_named(states: Call, vlbench: Call, copy: Callable[[str], Path]) -> None:
    run = copy("classify")
    rewrite(run, lambda values: (values.pop("seal"), values.pop("files")))
    assert states(run) == [("unsealed", "its samples give its scores")]
    note = f"1 of 1 records have no seal, so edits are not detected: {run_name(run)}"
    assert note in vlbench("leaderboard", run).out
    assert vlbench("report", run, "--html", run / "page.html").code == 0
    assert "none, so edits are not detected" in (run / "page.html").read_text(encoding="utf8")
    rewrite(run, lambda values: values.update(status="interrupted"))
    assert states(run) == [("unfinished", "status interrupted")]


def run_name(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text(encoding="utf8"))["fingerprint"])


@pytest.mark.parametrize("file", ["run.json", "samples.parquet", "ranks.parquet"])
def test_a_finished_run_that_was_edited_is_not_believed(
    vlbench: Call, copy: Callable[[str], Path], states: Call, tiny_world: Path, tmp_path: Path, file: str
) -> None:
    """It ends with exit 5 and the remedy, which works."""
    run = copy("rank")
    place = tmp_path / "runs" / "coco_retrieval" / "fake-tiny" / run_name(run)
    shutil.copytree(run, place)
    if file == "run.json":
        rewrite(place, lambda values: first(values).update(value=600.0))
    else:
        rewrite_table(place / file, *(("text", "x") if file == "samples.parquet" else ("rank_low", 0)))
    again = ("run", *KINDS["rank"], "--model", "fake", "--steps", 1, "--data-root", tiny_world)
    again += ("--output-path", tmp_path / "runs", "--quiet")
    done = vlbench(*again)
    assert (done.code, done.out) == (5, "") and "edited or damaged" in done.err and "--no-resume" in done.err
    assert vlbench(*again, "--no-resume").run == place
    assert states(place) == [("recomputed", "")]


def test_code_beside_a_record_is_not_run(
    vlbench: Call, states: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task of one's own is loaded from --tasks-dir only, never from where a record says."""
    monkeypatch.chdir(tmp_path)
    assert vlbench("new", "task", "mine").code == 0
    run = vlbench(
        "run", "--task", "mine", "--model", "fake", "--tasks-dir", ".", "--data-root", "mine/sample", "--steps", 1,
        "--controls", "none", "--output-path", "runs", "--quiet",
    ).run  # fmt: skip
    assert states(run, "--tasks-dir", ".") == [("recomputed", "")]
    with (tmp_path / "mine" / "adapter.py").open("a", encoding="utf8") as file:
        file.write("\nraise RuntimeError('this code was run')\n")
    ((state, why),) = states(run)
    assert state == "sealed" and why.startswith("its task cannot be loaded: ")
    assert vlbench("verify", run, "--tasks-dir", "nowhere").code == 2
