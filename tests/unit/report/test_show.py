from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.record import Decoding, Prompting, RunRecord
from vlbench.records.folder import RunFolder
from vlbench.records.samples import SampleRow, write_samples
from vlbench.report.show import show_rows


def row(name: str, score: float | None, **changed: str) -> SampleRow:
    fields = {"text": f"statement {name}", "reference": '{"value": "True"}', "prediction": "False", "error": ""}
    fields |= changed
    return SampleRow(
        example_id=name,
        split="test-p",
        group="g",
        text=fields["text"],
        image_ids=(f"{name}-img0", f"{name}-img1"),
        reference=fields["reference"],
        prediction=fields["prediction"],
        confidence=None if score is None else 0.75,
        score=score,
        status="error" if fields["error"] else "ok",
        error=fields["error"],
        control=changed.get("control", ""),
    )


@pytest.fixture
def run(folder: Path, record: RunRecord) -> Path:
    RunFolder(folder).write_record(record)
    rows = [row("right", 1.0), row("wrong", 0.0), row("partly", 0.3), row("failed", None, error="boom")]
    write_samples(folder / "samples.parquet", [*rows, row("wrong-blind", 0.0, control="blind")])
    return folder


def ids(text: str) -> list[str]:
    """The first column of the grid, wrapped lines left out."""
    found = re.findall(r"^\| (\S+)\s+\|", text, flags=re.MULTILINE)
    return [name for name in found if name != "id"]


def test_all_rows_of_the_real_run(run: Path) -> None:
    text = show_rows(run, wrong=False, n=20)
    assert text.splitlines()[0] == "nlvr2 test-p | cvlp-tiny | built-in world | n = 4,000"
    assert "4 of 4 examples" in text
    assert ids(text) == ["right", "wrong", "partly", "failed"]
    line = next(line for line in text.splitlines() if line.startswith("| wrong "))
    cells = [part.strip() for part in line.split("|")[1:-1]]
    assert cells == ["wrong", "statement wrong", "wrong-img0, wrong-img1", "True", "False", "0.750"]
    assert "error: boom" in text


def test_the_prompt_of_an_example_is_shown(run: Path, record: RunRecord) -> None:
    decoding = Decoding(max_new_tokens=20, stop=("</s>",))
    asked = Prompting(example="right", prompt="USER: <image>\nIs it?\x1b[31m ASSISTANT:", decoding=decoding)
    model = record.model.model_copy(update={"prompting": asked})
    RunFolder(run).write_record(record.model_copy(update={"model": model}))
    text = show_rows(run, wrong=False, n=1)
    lines = text.splitlines()
    place = lines.index("  USER: <image>")
    assert lines[place - 1].startswith(
        "prompt of right (max_new_tokens 20, do_sample False, temperature None, num_beams 1"
    )
    assert lines[place + 1] == "  Is it?\\x1b[31m ASSISTANT:"


def test_wrong_and_n(run: Path) -> None:
    text = show_rows(run / "run.json", wrong=True, n=2)
    assert "2 of 3 wrong examples (4 in all)" in text
    assert ids(text) == ["wrong", "partly"]


def test_nothing_wrong(folder: Path, record: RunRecord) -> None:
    RunFolder(folder).write_record(record)
    write_samples(folder / "samples.parquet", [row("right", 1.0)])
    assert show_rows(folder, wrong=True, n=5).endswith("0 of 0 wrong examples (1 in all)")


def test_hostile_and_long_texts_keep_the_grid(folder: Path, record: RunRecord) -> None:
    RunFolder(folder).write_record(record)
    long = row("x" * 100, 0.0, text="a\nb|c\x1b[2J" + " word" * 100, reference='{"a": ["b"], "c": 1}')
    write_samples(folder / "samples.parquet", [long])
    grid = show_rows(folder, wrong=False, n=1).split("\n\n")[2].splitlines()
    assert len({len(line) for line in grid}) == 1 and len(grid[0]) < 160
    assert not any("\x1b" in line for line in grid)


def test_faults(run: Path, record: RunRecord) -> None:
    with pytest.raises(VlbenchError, match="-n 0 shows nothing"):
        show_rows(run, wrong=False, n=0)
    with pytest.raises(VlbenchError, match=f"did you mean {run}"):
        show_rows(run.with_name("rnu"), wrong=False, n=1)
    (run / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"samples\.parquet is corrupt"):
        show_rows(run, wrong=False, n=1)
    (run / "samples.parquet").unlink()
    RunFolder(run).write_record(record.model_copy(update={"status": "interrupted"}))
    with pytest.raises(VlbenchError, match=r"no samples yet \(status interrupted"):
        show_rows(run, wrong=False, n=1)


def test_what_is_no_probability_is_a_score(folder: Path, record: RunRecord) -> None:
    RunFolder(folder).write_record(record)
    rows = [row("a", 1.0), row("b", None), replace(row("c", 1.0), confidence=1.826)]
    write_samples(folder / "samples.parquet", rows)
    assert last_header(folder) == "score"  # of the whole run, whichever part of it is shown
    write_samples(folder / "samples.parquet", rows[:2])
    assert last_header(folder) == "confidence"
    (folder / "ranks.parquet").touch()
    assert last_header(folder) == "score"


def last_header(folder: Path) -> str:
    line = next(line for line in show_rows(folder, wrong=False, n=2).splitlines() if line.startswith("| id"))
    return line.split("|")[-2].strip()


def test_the_score_that_chose_the_checkpoint(folder: Path, record: RunRecord) -> None:
    assert record.train is not None
    train = record.train.model_copy(update={"selection": 61.237, "best_step": 1200, "weights": "ema"})
    task = record.task.model_copy(update={"main_metric": "accuracy"})
    RunFolder(folder).write_record(record.model_copy(update={"train": train, "task": task}))
    write_samples(folder / "samples.parquet", [row("1", 1.0)])
    shown = show_rows(folder, wrong=False, n=1)
    assert "selection: accuracy 61.24 on dev (step 1,200, ema weights)" in shown
    RunFolder(folder).write_record(record)
    assert "selection" not in show_rows(folder, wrong=False, n=1)
