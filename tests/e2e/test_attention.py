"""`vlbench report --attention`: from a finished run's weights to its page, without touching its answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Run = Callable[..., Path]


@pytest.fixture
def run(vlbench: Any, quick: list[object]) -> Run:
    """A quick run; flags that come later win."""

    def make(*flags: object) -> Path:
        done = vlbench(*quick, *flags)
        assert done.code == 0, done.err
        return done.run  # type: ignore[no-any-return]

    return make


def kept(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "attention.parquet")


def payload(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])
    return found


@pytest.mark.parametrize("model", ["cvlp", "lxmert", "vilt", "soho"])
def test_each_model_that_looks_at_pairs_tells(vlbench: Any, run: Run, model: str) -> None:
    folder = run("--model", model)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = vlbench("report", folder, "--attention")
    assert done.code == 0, done.err
    assert all(path.read_bytes() == content for path, content in files.items()), "nothing else changes"
    new = {path.name for path in folder.rglob("*") if path.is_file() and path not in files}
    assert new == {"attention.parquet", "report.html"}
    samples, rows = pd.read_parquet(folder / "samples.parquet"), kept(folder)
    assert set(rows.example_id) == set(samples.example_id)
    assert (rows.groupby("example_id").place.apply(list) == [[0, 1]] * len(samples)).all()
    sums = rows.weights.map(sum).to_numpy()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    boxes = np.concatenate([one.reshape(-1, 4) for one in rows.boxes])
    assert boxes.min() >= 0 and boxes.max() <= 1 and (boxes[:, :2] < boxes[:, 2:]).all()
    shown = payload(folder / "report.html")["rows"]
    assert all(len(one["a"]["attention"]) == 2 for one in shown)


def test_it_is_computed_once_and_the_page_then_needs_no_torch(vlbench: Any, run: Run, tmp_path: Path) -> None:
    folder = run("--model", "vilt")
    assert vlbench("report", folder, "--attention", "--max-examples", 5, "--html", tmp_path / "five.html").code == 0
    first = (folder / "attention.parquet").stat().st_mtime_ns
    assert len(kept(folder)) == 2 * 5
    assert vlbench("report", folder, "--attention", "--max-examples", 4, "--html", tmp_path / "four.html").code == 0
    assert (folder / "attention.parquet").stat().st_mtime_ns == first
    script = (
        "import sys; from vlbench.cli.main import main;"
        f"code = main(['report', {str(folder)!r}, '--max-examples', '5', '--html', {str(tmp_path / 'again.html')!r}]);"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "five.html").read_bytes()
    assert vlbench("report", folder, "--attention", "--html", tmp_path / "all.html").code == 0
    assert len(kept(folder)) > 10, "what is missing is computed"


def test_the_weights_that_answered_tell_not_those_the_model_comes_with(vlbench: Any, run: Run) -> None:
    trained = run("--model", "cvlp", "--set", "train.lr=1e-2")
    evaluated = run("--model", "cvlp", "--mode", "eval", "--checkpoint", trained)
    other = run("--model", "cvlp", "--steps", "1")
    for folder in (trained, evaluated, other):
        assert vlbench("report", folder, "--attention").code == 0
    of_trained, of_evaluated, of_other = (
        np.concatenate(kept(one).weights.to_list()) for one in (trained, evaluated, other)
    )
    np.testing.assert_array_equal(of_trained, of_evaluated)
    assert np.abs(of_trained - of_other).max() > 1e-3


@pytest.mark.parametrize(
    "flags",
    [
        ("--model", "vilt", "--mode", "probe"),
        ("--model", "cvlp", "--task", "vqa2"),
        ("--model", "cvlp", "--task", "coco_retrieval", "--select-on", "none"),
    ],
)
def test_probes_open_answers_and_rankings_tell_too(vlbench: Any, run: Run, flags: tuple[str, ...]) -> None:
    folder = run(*flags)
    done = vlbench("report", folder, "--attention", "--max-examples", 6)
    assert done.code == 0, done.err
    assert kept(folder).example_id.nunique() == 6


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--model", "fake"), "fake does not give its attention"),
        (("--model", "brivl", "--task", "coco_retrieval", "--mode", "zero-shot"), "the answers compare embeddings"),
    ],
)
def test_a_model_that_does_not_tell_is_a_note(vlbench: Any, run: Run, flags: tuple[str, ...], why: str) -> None:
    folder = run(*flags)
    done = vlbench("report", folder, "--attention")
    assert done.code == 0, done.err
    page = (folder / "report.html").read_text()
    assert f"no attention: {why}" in page
    assert 'id="attention"' not in page


def test_what_is_answered_otherwise_now_is_left_out(vlbench: Any, run: Run, edit_record: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = run("--model", "vilt")
    table = pq.read_table(folder / "samples.parquet")
    answers = table["prediction"].to_pylist()
    answers[0] = {"True": "False", "False": "True"}[answers[0]]
    place = table.column_names.index("prediction")
    pq.write_table(table.set_column(place, "prediction", pa.array(answers)), folder / "samples.parquet")
    edit_record(folder, lambda values: None)
    assert vlbench("report", folder, "--attention").code == 0
    assert table["example_id"][0].as_py() not in set(kept(folder).example_id)
    total = len(answers)
    assert f"the attention is shown for {total - 1} of {total} examples" in (folder / "report.html").read_text()


def test_an_evaluation_is_told_of_from_any_folder(
    vlbench: Any, run: Run, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record keeps --checkpoint and --data-root as they were given: relative to where the run was called from."""
    trained = run("--model", "vilt")
    shutil.copytree(tiny_world, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    given = str(trained.relative_to(tmp_path))
    folder = run("--model", "vilt", "--mode", "eval", "--checkpoint", given, "--data-root", "data").absolute()
    assert json.loads((folder / "run.json").read_text())["spec"]["checkpoint"] == given
    monkeypatch.chdir("/")
    done = vlbench("report", folder, "--attention")
    assert done.code == 0, done.err
    page = (folder / "report.html").read_text()
    assert len(kept(folder)) > 0 and "are not available" not in page
    (folder / "attention.parquet").unlink()
    shutil.rmtree(trained / "checkpoints")
    done = vlbench("report", folder, "--attention")
    assert done.code == 6 and f"the weights of run {folder} are missing: put {trained} back" in done.err
    assert not (folder / "attention.parquet").exists()


def test_faults_are_named_and_leave_nothing(
    vlbench: Any, run: Run, edit_record: Any, tiny_world: Path, tmp_path: Path
) -> None:
    folder = run("--model", "vilt")
    broken = shutil.copytree(folder, tmp_path / "broken")
    shutil.rmtree(broken / "checkpoints")
    done = vlbench("report", broken, "--attention")
    assert done.code == 6 and f"the weights of run {broken} are missing: put {broken}" in done.err
    assert "leave out --attention" in done.err and "--checkpoint" not in done.err
    begun = shutil.copytree(folder, tmp_path / "begun")
    edit_record(begun, lambda values: values.update(status="interrupted"))
    done = vlbench("report", begun, "--attention")
    assert done.code == 2 and "is interrupted, and --attention needs a finished run" in done.err
    data = shutil.copytree(tiny_world, tmp_path / "world")
    for path in (data / "nlvr2").rglob("test1.json"):
        path.write_text(path.read_text().replace("image", "photograph"))
    done = vlbench("report", folder, "--attention", "--data-root", data)
    assert done.code == 5 and "other texts for them" in done.err and "--data-root" in done.err
    assert not any((one / "attention.parquet").exists() for one in (folder, broken, begun))


def test_a_damaged_file_is_made_again(vlbench: Any, run: Run) -> None:
    folder = run("--model", "vilt")
    (folder / "attention.parquet").write_bytes(b"no parquet")
    done = vlbench("report", folder)
    assert done.code == 5 and "corrupt" in done.err
    assert vlbench("report", folder, "--attention").code == 0
    assert len(kept(folder))
