"""What is read cannot reach out of its folder, and what is written or shown tells nothing and steers nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vlbench.core.cards import SplitCard
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.task import SplitFiles
from vlbench.data.cache.index import inside

Call = Callable[..., Any]
ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def asking_for(path: Path) -> Iterator[Example[Label]]:
    yield Example("one", Query((ImageRef(path, "key"),), "text"), Label("yes"), "group")


@pytest.fixture
def files(tmp_path: Path) -> SplitFiles:
    card = SplitCard(files={"images": ("pictures/{folder}",), "elsewhere": (str(tmp_path / "named"),)})
    return SplitFiles("train", tmp_path / "root", card, siblings=(tmp_path / "coco",))


@pytest.mark.parametrize("place", ["root/a.jpg", "root/deep/a..b.jpg", "root/x/../a.jpg", "coco/a.jpg", "named/a.jpg"])
def test_pictures_at_home(place: str, files: SplitFiles, tmp_path: Path) -> None:
    assert len(list(inside(asking_for(tmp_path / place), files))) == 1


@pytest.mark.parametrize(
    "place", ["a.jpg", "root/../a.jpg", "rooted/a.jpg", "coco2/a.jpg", "/etc/passwd", "root/a\0.jpg"]
)
def test_pictures_that_lead_out(place: str, files: SplitFiles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside of") as error:
        list(inside(asking_for(tmp_path / place), files))
    assert "'one'" in error.value.message and "'train'" in error.value.message


def test_a_relative_root(files: SplitFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = SplitFiles("train", Path(), files.card)
    assert len(list(inside(asking_for(Path("a.jpg")), here))) == 1
    with pytest.raises(DataError):
        list(inside(asking_for(Path("../a.jpg")), here))


def test_an_error_cannot_steer_the_terminal() -> None:
    error = VlbenchError(f"the label is {ESCAPE}\n" + "x" * 10_000 + ": mend it")
    assert error.message.isprintable() and len(error.message) < 3000
    assert error.message.startswith("the label is \\x1b") and error.message.endswith(": mend it")


def test_no_home_and_no_secret_in_a_run(
    vlbench: Call, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "somebody"
    home.mkdir()
    (home / "data").symlink_to(tiny_world)
    (home / "answers.json").write_text(json.dumps(["yes", "no", "2", "red"]))
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "s3cret-t0ken")
    done = vlbench(
        "run", "--task", "vqa2", "--model", "fake", "--data-root", home / "data", "--answers", home / "answers.json",
        "--output-path", home / "runs", "--steps", 1, "--controls", "none", "--vocabulary", tiny_world / "vocab.txt",
    )  # fmt: skip
    assert done.code == 0, done.err
    written = [path for path in done.run.rglob("*") if path.is_file()]
    assert {"run.json", "config.yaml", "log.txt", "samples.parquet"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        assert b"somebody" not in content, path
        assert b"s3cret" not in content, path
    assert json.loads((done.run / "run.json").read_text())["spec"]["answers"] == "~/answers.json"


def test_what_is_shown_cannot_steer_the_terminal(
    vlbench: Call, edit_record: Callable[..., None], tiny_world: Path, tmp_path: Path
) -> None:
    quick = ("--steps", 1, "--controls", "none", "--quiet", "--output-path", tmp_path / "runs")
    run = vlbench("run", "--task", "nlvr2", "--model", "fake", "--data-root", tiny_world, *quick).run
    samples = pd.read_parquet(run / "samples.parquet")
    for name in ("example_id", "text", "prediction", "error"):
        samples[name] = f"{ESCAPE}|{name}"
    samples["status"], samples["reference"] = "error", json.dumps({"value": ESCAPE})
    samples.to_parquet(run / "samples.parquet")

    def change(record: dict[str, Any]) -> None:
        record["task"]["split"] = record["model"]["name"] = record["environment"]["cpu"] = ESCAPE
        record["task"]["notes"] = [ESCAPE]
        record["results"][0]["slices"] = {ESCAPE: {ESCAPE: record["results"][0] | {"slices": {}}}}

    edit_record(run, change)
    for verb in (("show", run), ("list", "runs", "--output-path", tmp_path / "runs")):
        done = vlbench(*verb)
        assert done.code == 0, done.err
        assert "\x1b" not in done.out and "\x07" not in done.out and "x1b" in done.out


def test_a_record_runs_no_code_that_came_with_it(
    vlbench: Call, edit_record: Callable[..., None], tmp_path: Path
) -> None:
    """Not that of a task beside it, nor, without --trust-code, that of its model."""
    assert vlbench("new", "task", "paint", "--into", tmp_path / "tasks").code == 0
    folder, model = tmp_path / "tasks" / "paint", tmp_path / "mine"
    flags = ("--steps", 1, "--controls", "none", "--quiet", "--output-path", tmp_path / "runs")
    own = ("--tasks-dir", tmp_path / "tasks", "--data-root", folder / "sample")
    run = vlbench("run", "--task", "paint", "--model", "fake", *own, *flags).run
    for code in (folder / "adapter.py", model / "backbone.py"):
        code.parent.mkdir(exist_ok=True)
        code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf8")
    for verb in ("report", "show", "verify", "leaderboard"):
        assert vlbench(verb, run).code == 0
    edit_record(run, lambda values: values["spec"].update(model=f"{model / 'backbone.py'}:Mine"))
    done = vlbench("report", run, "--attention", "--tasks-dir", tmp_path / "tasks")
    assert done.code == 2 and "add --trust-code to run that code" in done.err
    assert not (tmp_path / "ran").exists()
    assert vlbench("report", run, "--tasks-dir", tmp_path / "tasks").code == 0
    assert (tmp_path / "ran").exists()
