"""`--on-error record`: an example that cannot be answered costs itself, and nothing but itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vlbench.core.examples import Prompt
from vlbench.engine.source import load_task
from vlbench.models.fake.backbone import Fake
from vlbench.records.folder import find_runs, read_run

Call = Callable[..., Any]
RECORD = ("--on-error", "record")


@pytest.fixture
def damage(tiny_world: Path, tmp_path: Path) -> Callable[..., tuple[Path, list[str]]]:
    """A world in which an image of a split is no image; with the ids of the examples that show it."""

    def damage(task: str, split: str = "", features: bool = True) -> tuple[Path, list[str]]:
        root = tmp_path / "damaged"
        shutil.copytree(tiny_world, root, copy_function=os.link)
        if not features:
            shutil.rmtree(root / task / "features")
        loaded = load_task(task, root)
        examples = loaded.load(split or loaded.card.report_split)
        ref = examples[3].query.images[-1]
        ref.path.unlink()
        ref.path.write_bytes(b"no image")
        shown = [example.id for example in examples if ref.path in [image.path for image in example.query.images]]
        return root, shown

    return damage


@pytest.fixture
def run(vlbench: Call, tmp_path: Path) -> Call:
    place = ("--output-path", tmp_path / "runs", "--controls", "none", "--steps", 1, "--eval-batch-size", 8, "--quiet")
    return lambda *more: vlbench("run", *place, *more)


def rows(run: Path, control: str = "") -> pd.DataFrame:
    return pd.read_parquet(run / "samples.parquet").set_index("example_id").query("control == @control")


CASES = {
    "finetune": ("nlvr2", "vilt", "--workers", 2, "--controls", "blind"),
    "probe": ("nlvr2", "vilt", "--mode", "probe"),
    "open answers": ("vqa2", "vilt"),
    "regions": ("nlvr2", "cvlp"),
    "dual zero-shot": ("snli_ve", "brivl", "--mode", "zero-shot"),
    "text": ("vqa2", "llava", "--mode", "zero-shot", "--answer-by", "text"),
    "candidates": ("nlvr2", "llava", "--mode", "zero-shot"),
    "two processes": ("nlvr2", "vilt", "--num-processes", 2),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case == "two processes" else case for case in CASES]
)
def test_the_other_examples_get_the_answers_of_a_sound_world(
    case: str, run: Call, damage: Call, tiny_world: Path, make_vlm: Call, tmp_path: Path
) -> None:
    task, model, *options = CASES[case]
    root, failed = damage(task, features=case != "regions")
    model = f"hf:{make_vlm(model).folder}" if model == "llava" else model
    command = ("--task", task, "--model", model, *options, "--limit", 40, "--limit-mode", "head")
    broken = run(*command, *RECORD, "--data-root", root, "--output-path", tmp_path / "broken")
    sound = run(*command, "--data-root", tiny_world, "--output-path", tmp_path / "sound")
    assert (broken.code, sound.code) == (8, 0), broken.err + sound.err
    ((folder, got), (_, expected)) = (
        (path, rows(path)) for name in ("broken", "sound") for path in find_runs(tmp_path / name)
    )
    failed = [name for name in failed if name in got.index]
    assert failed and list(got.index[got["status"] == "error"]) == failed
    others = got.index.difference(failed)
    assert got.loc[others, "prediction"].equals(expected.loc[others, "prediction"])
    assert got.loc[others, "status"].equals(expected.loc[others, "status"])
    assert (got.loc[failed, "prediction"] == "").all() and (got.loc[failed, "score"] == 0).all()
    assert got.loc[failed, "error"].str.contains("is not an image").all()
    assert (rows(folder, "blind")["status"] == "ok").all()  # no image is read
    record = read_run(folder)
    assert (record.status, record.coverage.errors, record.coverage.scored) == ("done", len(failed), 40)
    assert record.results[0].value == pytest.approx(100 * got["score"].mean())


def test_what_is_said_of_it(run: Call, vlbench: Call, damage: Call, tmp_path: Path) -> None:
    root, failed = damage("nlvr2")
    done = run("--task", "nlvr2", "--model", "vilt", *RECORD, "--data-root", root)
    folder = done.run
    assert f"\n{len(failed)} of 96 examples could not be answered and count as wrong, in values and" in done.out
    assert done.err.startswith(f"vlbench: {len(failed)} of 96 examples could not be answered and count as wrong, ")
    assert done.err.count("\n") == 1
    assert all(text in done.err for text in (*failed, "is not an image", str(folder / "samples.parquet")))
    again = run("--task", "nlvr2", "--model", "vilt", *RECORD, "--data-root", root)
    assert (again.code, again.out, again.err) == (8, done.out, done.err)
    stopping = run("--task", "nlvr2", "--model", "vilt", "--data-root", root)
    assert stopping.code == 2 and f"{len(failed)} of its examples could not be answered" in stopping.err
    board = vlbench("leaderboard", tmp_path / "runs", "--format", "json")
    (row,) = json.loads(board.out)["rows"]
    assert (row["rank"], row["doubt"]) == (None, f"{len(failed)} of 96 examples without an answer")
    page = tmp_path / "report.html"
    assert vlbench("report", folder, "--attention", "--html", page, "--data-root", root).code == 0
    assert "is not an image" in page.read_text(encoding="utf8")
    shown = vlbench("show", folder, "--wrong", "-n", 100)
    assert shown.code == 0 and "error:" in shown.out


def test_a_stopped_run_resumes_with_it(run: Call, damage: Call) -> None:
    """The fingerprint does not count it: neither training nor answers are lost, and sound runs are the same."""
    root, _ = damage("nlvr2")
    command = ("--task", "nlvr2", "--model", "vilt", "--data-root", root)
    stopped = run(*command)
    assert stopped.code == 5 and "is not an image" in stopped.err
    (folder,) = (path.parent for path in root.parent.rglob("run.json"))
    (log,) = folder.glob("metrics*.jsonl")
    trained = log.read_text(encoding="utf8")
    recorded = run(*command, *RECORD)
    assert (recorded.code, recorded.run) == (8, folder)
    assert log.read_text(encoding="utf8") == trained


def test_a_sound_run_is_the_same_with_it(run: Call, tiny_world: Path) -> None:
    command = ("--task", "nlvr2", "--model", "fake", "--data-root", tiny_world)
    first, second = run(*command), run(*command, *RECORD)
    assert (first.code, second.code, second.err) == (0, 0, "") and first.out == second.out
    kept = rows(first.run)
    assert run(*command, *RECORD, "--no-resume").code == 0
    assert rows(first.run).equals(kept)


@pytest.mark.parametrize("half", ["prepare_prompts", "generate"])
def test_a_prompt_that_a_model_cannot_take(
    half: str, run: Call, tiny_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the library raises, in preparing the prompt or in generating."""
    command = ("--task", "vqa2", "--model", "fake", "--mode", "zero-shot", "--answer-by", "text")
    sound = rows(run(*command, "--data-root", tiny_world).run)
    longest = max(sound["text"], key=len)
    prepare, generate = Fake.prepare_prompts, Fake.generate

    def prepare_prompts(self: Fake, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Any:
        long = [longest in prompt.query.text for prompt in prompts]
        if any(long) and half == "prepare_prompts":
            raise ValueError("Sequence length must be less than max_position_embeddings")
        prepared = prepare(self, prompts, answers)
        prepared["hash"][long] += 9  # marks them for `generate`
        return prepared

    def refuse_long(self: Fake, prompts: Any, most: int) -> list[str]:
        if (prompts["hash"] > 5).any():
            raise IndexError("index out of range in self")
        return generate(self, prompts, most)

    monkeypatch.setattr(Fake, "prepare_prompts", prepare_prompts)
    monkeypatch.setattr(Fake, "generate", refuse_long)
    done = run(*command, *RECORD, "--data-root", tiny_world, "--no-resume")
    assert done.code == 8, done.err
    got = rows(done.run)
    failed = got["text"] == longest
    assert list(got["status"] == "error") == list(failed)
    assert got.loc[~failed, "written"].equals(sound.loc[~failed, "written"])
    reason = "ValueError: Sequence length" if half == "prepare_prompts" else "IndexError: index out of range"
    assert got.loc[failed, "error"].str.startswith(reason).all()


@pytest.mark.parametrize("split", ["train", "dev"])
def test_what_is_learned_from_always_stops(split: str, run: Call, damage: Call) -> None:
    root, _ = damage("nlvr2", split)
    done = run("--task", "nlvr2", "--model", "vilt", *RECORD, "--data-root", root, "--batch-size", 200)
    assert done.code == 5 and "is not an image" in done.err


def test_a_broken_setting_stops_and_resumes_when_it_is_mended(
    run: Call, tiny_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--task", "nlvr2", "--model", "fake", "--mode", "zero-shot", *RECORD, "--data-root", tiny_world)
    with monkeypatch.context() as patch:
        patch.setattr(Fake, "prepare_prompts", lambda *_: {}["processor"])
        broken = run(*command)
    assert broken.code == 5
    assert "of 96 examples cannot be answered, more than --on-error record accepts (a half)" in broken.err
    assert "KeyError: 'processor'" in broken.err
    assert run(*command).code == 0


def test_an_image_of_a_gallery_concerns_all_others(run: Call, tiny_world: Path) -> None:
    done = run("--task", "coco_retrieval", "--model", "vilt", *RECORD, "--data-root", tiny_world)
    assert done.code == 2 and "changes the ranks of all others" in done.err
