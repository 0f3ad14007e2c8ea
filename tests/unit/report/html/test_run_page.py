from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlbench.core.errors import VlbenchError
from vlbench.core.record import RunRecord
from vlbench.core.results import Ranking
from vlbench.records.folder import RunFolder, read_run
from vlbench.records.rankings import write_ranks
from vlbench.records.samples import SampleRow, write_samples
from vlbench.report.html.run_page import run_page
from vlbench.report.html.thumbnails import ReportImages

MakeRun = Callable[..., Path]
NOWHERE = ReportImages(absent="there is no data")


def payload(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    values: dict[str, Any] = json.loads(found[1])
    return values


def tables(text: str) -> dict[str, list[list[str]]]:
    """Caption -> rows of texts, taken out with patterns of our own."""
    found = {}
    for table in re.findall(r"<table.*?</table>", text, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        plain = [[" ".join(unescape(re.sub(r"<[^>]*>", "", cell)).split()) for cell in row] for row in cells]
        caption = re.search(r"<caption>(.*?)</caption>", table)
        assert caption
        found[unescape(caption[1])] = plain
    return found


def row(place: int, **changed: Any) -> SampleRow:
    values: dict[str, Any] = {
        "example_id": f"e{place}", "split": "test", "group": f"g{place}", "text": f"text {place}",
        "image_ids": (f"p{place}",), "reference": '{"value": "yes"}', "prediction": "yes", "confidence": 0.75,
        "score": 1.0, "status": "ok", "error": "",
    }  # fmt: skip
    return SampleRow(**values | changed)


def test_figures_are_the_records(folder: Path, record: RunRecord) -> None:
    RunFolder(folder).write_record(record)
    shown = tables(run_page(folder, None, NOWHERE))
    assert shown["Scores"] == [
        ["metric", "value", "", "95 % interval", "n", "majority", "blind control"],
        ["accuracy", "58.33", "", "[56.75, 59.90]", "4,000", "50.00", "50.00"],
        ["consistency", "12.50", "", "–", "1,000", "–", "–"],
    ]
    assert shown["accuracy by kind"][1:] == [
        ["count", "55.50", "", "[50.50, 60.50]", "400", "50.00"],
        ["spatial", "61.25", "", "[56.25, 66.25]", "3,600", "–"],
    ]
    assert ["examples per second", "1,812.5"] in shown["Costs"]
    assert ["data manifest", "m"] in shown["Provenance"]


@pytest.mark.parametrize("status", ["started", "failed", "interrupted"])
def test_a_run_without_answers_says_so(folder: Path, record: RunRecord, status: str) -> None:
    unfinished = record.model_copy(update={"status": status, "results": (), "efficiency": None, "train": None})
    RunFolder(folder).write_record(unfinished)
    text = run_page(folder, None, NOWHERE)
    assert f"{status.upper()}: this run is not finished" in text
    assert "There are no scores." in text
    assert 'id="examples"' not in text


def test_a_figure_that_is_no_number_is_named(folder: Path, record: RunRecord) -> None:
    broken = record.results[1].model_copy(update={"value": float("nan"), "ci95": (float("nan"), 1.0)})
    values = record.model_copy(update={"results": (broken,)}).model_dump(mode="json")
    values["results"][0] |= {"value": float("nan"), "ci95": [float("nan"), 1.0]}
    (folder / "run.json").write_text(json.dumps(values))
    assert tables(run_page(folder, None, NOWHERE))["Scores"][1][1] == "no value"


def test_examples_flips_and_differences_are_those_of_both_runs(make_run: MakeRun) -> None:
    from scipy.stats import binomtest

    random = np.random.default_rng(0)
    a, b = ((random.uniform(size=200) < share).astype(float) for share in (0.6, 0.8))
    first, second = make_run("a", a.tolist()), make_run("b", b.tolist(), model="vilt")
    text = run_page(first, second, NOWHERE)
    found = payload(text)
    assert found["names"] == ["cvlp-tiny", "vilt-tiny"]
    assert [(one["a"]["score"], one["b"]["score"]) for one in found["rows"]] == list(zip(a, b, strict=True))
    overall = tables(text)["B compared with A by accuracy"][1]
    assert overall[:4] == ["all", f"{100 * a.mean():.2f}", f"{100 * b.mean():.2f}", f"{100 * (b - a).mean():+.2f}"]
    fixed, broken = int((b > a).sum()), int((b < a).sum())
    p = binomtest(fixed, fixed + broken).pvalue
    assert overall[5] == (f"{p:.3f}" if p >= 0.001 else "< 0.001")


def test_of_two_runs_everything_says_whose_it_is(make_run: MakeRun) -> None:
    first = make_run("a", [1.0, 0.0, 0.0, 0.0] * 10)
    second = make_run("b", [1.0, 1.0, 1.0, 0.0] * 10, model="vilt", answers=["True"] * 40)
    for path, loss in ((first, 4), (second, 2)):
        (path / "metrics.jsonl").write_text(f'{{"step": 1, "loss": {loss}}}\n{{"step": 2, "loss": 1}}\n')
    text = run_page(first, second, NOWHERE)
    found = tables(text)
    assert [found[f"{letter}: Scores"][1][1] for letter in "AB"] == ["25.00", "75.00"]
    answered = [found[f"{letter}: Reference by answer"] for letter in "AB"]
    assert answered == [
        [["reference", "True", "0.0", "1.0", "all"], ["True", "0 0%, right", "30 75%", "10 25%", "40"]],
        [["reference", "True", "all"], ["True", "40 100%, right", "40"]],
    ]
    assert "A: Training loss: Training loss by optimizer step: this run from 4 to 1." in text
    assert "B: Training loss: Training loss by optimizer step: this run from 2 to 1." in text
    for said in ("No calibration of A", "No calibration of B", "The whole spec of A", "The whole spec of B"):
        assert said in text
    assert "Answers of A</label>" in text and "worst first (A)<" in text
    alone = run_page(first, None, NOWHERE)
    assert "A: " not in alone and " of A" not in alone and "(A)" not in alone


def test_pictures_that_either_run_answered_with_are_there(make_run: MakeRun, tmp_path: Path) -> None:
    names = ["right", "of_a", "of_b"]
    first = make_run("a", [0.0, 1.0], answers=["of_a", "right"])
    second = make_run("b", [1.0, 0.0], model="vilt", answers=["right", "of_b"])
    for number, name in enumerate(names):
        Image.new("RGB", (30, 20), (80 * number, 0, 0)).save(tmp_path / f"{name}.png")
    texts = {"e0000": "question 0", "e0001": "question 1"}
    files = ReportImages({name: tmp_path / f"{name}.png" for name in names}, texts)
    assert set(payload(run_page(first, second, files))["images"]) == set(names)
    assert set(payload(run_page(second, None, files))["images"]) == {"right", "of_b"}
    other = ReportImages(files.paths, texts | {"e0001": "another question"})
    assert set(payload(run_page(first, second, other))["images"]) == {"right", "of_a"}


def test_runs_on_other_examples_are_refused(make_run: MakeRun) -> None:
    with pytest.raises(VlbenchError, match="same examples") as raised:
        run_page(make_run("a", [1.0, 0.0] * 20), make_run("b", [1.0] * 30, model="vilt"), NOWHERE)
    assert raised.value.exit_code == 10


def test_of_many_examples_any_run_shows_the_same(make_run: MakeRun) -> None:
    pages = [
        run_page(make_run(name, scores), None, NOWHERE, 50) for name, scores in (("a", [1.0] * 300), ("b", [0.0] * 300))
    ]
    a, b = ([one["id"] for one in payload(text)["rows"]] for text in pages)
    assert len(a) == 50
    assert a == b == sorted(a)
    assert "50 of 300 examples, selected by a hash of their id" in pages[0]
    assert 'id="examples"' not in run_page(make_run("c", [1.0]), None, NOWHERE, 0)
    with pytest.raises(VlbenchError, match="-1"):
        run_page(make_run("d", [1.0]), None, NOWHERE, -1)


def test_pictures_come_only_from_the_same_data(folder: Path, record: RunRecord, tmp_path: Path) -> None:
    RunFolder(folder).write_record(record)
    write_samples(folder / "samples.parquet", [row(0), row(1), row(2, image_ids=("gone",))])
    Image.new("RGB", (30, 20), "red").save(tmp_path / "p.png")
    paths = dict.fromkeys(("p0", "p1", "p2"), tmp_path / "p.png")
    files = ReportImages(paths, {"e0": "text 0", "e1": "another text", "e2": "text 2"})
    text = run_page(folder, None, files)
    assert set(payload(text)["images"]) == {"p0"}
    assert "images of 2 of 3 examples are not available: the local data lacks these images" in text
    assert "images of 3 of 3 examples are not available: there is no data" in run_page(folder, None, NOWHERE)


def test_calibration_and_confusion_count_all_examples(folder: Path, record: RunRecord) -> None:
    RunFolder(folder).write_record(record)
    rows = [row(place, confidence=0.75, score=1.0) for place in range(6)]
    rows += [row(place, confidence=0.75, score=0.0, reference='{"value": "no"}') for place in range(6, 8)]
    rows += [row(8, confidence=None, score=0.0, status="error", prediction="", reference='{"value": "no"}')]
    rows += [row(9, confidence=0.1, control="blind")]
    write_samples(folder / "samples.parquet", rows)
    text = run_page(folder, None, NOWHERE, 2)
    assert "Expected calibration error 0.0000 over 8 answers" in text
    assert tables(text)["Reference by answer"] == [
        ["reference", "no", "yes", "(error)", "all"],
        ["no", "0 0%, right", "2 67%", "1 33%", "3"],
        ["yes", "0 0%", "6 100%, right", "0 0%", "6"],
    ]


def test_ranks_are_counted_by_direction(folder: Path, record: RunRecord) -> None:
    RunFolder(folder).write_record(record)
    write_samples(folder / "samples.parquet", [row(0, confidence=3.5)])
    write_ranks(
        folder / "ranks.parquet", [Ranking("p", "i2t", 0, 0), Ranking("t", "t2i", 0, 1), Ranking("u", "t2i", 0, 400)]
    )
    text = run_page(folder, None, NOWHERE)
    assert "1 queries by rank: 1: 1, 2: 0," in text
    assert "2 queries by rank: 1: 0, 2: 1, 3–5: 0, 6–10: 0, 11–20: 0, 21–50: 0, 51–100: 0, &gt; 100: 1." in text
    assert not payload(text)["probable"]
    assert "Score from" in text


def test_curves_are_read_as_far_as_they_were_written(folder: Path, record: RunRecord) -> None:
    RunFolder(folder).write_record(record)
    lines = [
        '{"step": 1, "loss": 2.0}', '{"step": 2, "loss": "nan"}', "[]", '{"step": 3, "loss": 1.0}',
        '{"step": 3, "weights": "ema", "selection": 61.5}',
        '{"control": "blind", "step": 1, "loss": 4.0}', '{"step": 4, "lo',
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    text = run_page(folder, None, NOWHERE)
    assert "this run from 2 to 1; blind control from 4 to 4" in text
    assert "this run, ema weights from 61.5 to 61.5" in text


def test_two_thousand_examples_of_natural_size_weigh_less_than_twenty_megabytes(
    folder: Path, record: RunRecord, tmp_path: Path
) -> None:
    RunFolder(folder).write_record(record)
    random = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    keys = [f"p{place}" for place in range(4000)]
    words = "a rather long statement about what the two pictures show " * 4
    write_samples(
        folder / "samples.parquet",
        [
            row(place, text=words, image_ids=tuple(keys[2 * place : 2 * place + 2]), labels=("a" * 20,) * 10,
                label_scores=(0.1,) * 10)
            for place in range(2000)
        ],
    )  # fmt: skip
    paths = {key: tmp_path / f"{place % 8}.png" for place, key in enumerate(keys)}
    text = run_page(folder, None, ReportImages(paths, {f"e{place}": words for place in range(2000)}))
    assert len(payload(text)["images"]) == 4000
    assert len(text.encode()) < 20 << 20


def test_the_same_record_gives_the_same_bytes(make_run: MakeRun) -> None:
    run = make_run("a", [1.0, 0.0, 0.5])
    assert run_page(run, None, NOWHERE) == run_page(run, None, NOWHERE)
    assert read_run(run).status == "done"


def test_two_runs_of_one_model_have_names_that_tell_them_apart(make_run: MakeRun) -> None:
    high, low = make_run("high", [1.0, 1.0, 1.0, 0.0], seed=3), make_run("low", [1.0, 0.0, 0.0, 0.0], seed=1)
    text = run_page(high, low, NOWHERE)
    assert payload(text)["names"] == ["cvlp-tiny (seed 3)", "cvlp-tiny (seed 1)"]
    assert "A: <bdi>cvlp-tiny (seed 3)</bdi>" in text and "B: <bdi>cvlp-tiny (seed 1)</bdi>" in text
    assert tables(text)["B compared with A by accuracy"][1][1:3] == ["75.00", "25.00"]
    assert "both are the same run" in run_page(high, high, NOWHERE)
    assert "both are the same run" not in text
