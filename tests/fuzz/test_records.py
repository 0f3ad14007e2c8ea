"""Changed predictions, records and samples: `score` and `show` say a sentence or show what is there."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbench import catalog
from vlbench.engine.score import score_file
from vlbench.report.show import show_rows
from vlbench.report.tables.results import run_table, score_table

Offer = Callable[[Random], None]
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")


@pytest.fixture(scope="module")
def run(fake_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to spoil."""
    return shutil.copytree(fake_run, tmp_path_factory.mktemp("spoilt") / "run")


@pytest.fixture(scope="module")
def predictions(run: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Path, bool]]:
    """Tasks with files of right predictions, in every format; and whether it is JSON."""
    folder = tmp_path_factory.mktemp("predictions")
    made = []
    for name in ("nlvr2", "vqa2", "gqa"):
        task = catalog.load_task(name, catalog.task_root(tiny_world, name), "world")
        answers = [(one.id, one.reference.consensus) for one in task.load(task.card.report_split)]
        lines = "\n".join(json.dumps({"id": id_, "answer": answer}) for id_, answer in answers)
        listed = json.dumps([{"question_id": id_, "answer": answer} for id_, answer in answers])
        table = "\n".join(f"{id_},{answer}" for id_, answer in answers)
        for suffix, text, structured in (("jsonl", lines, True), ("json", listed, True), ("csv", table, False)):
            path = folder / f"{name}.{suffix}"
            path.write_text(text)
            made.append((task, path, structured))
    samples = shutil.copy(run / "samples.parquet", folder / "samples.parquet")
    made.append((made[0][0], Path(samples), False))
    task = catalog.load_task("coco_retrieval", catalog.task_root(tiny_world, "coco_retrieval"), "world")
    examples = task.load(task.card.report_split)
    pictures = len({one.reference.image for one in examples})
    scores = folder / "scores.npy"
    np.save(scores, np.random.default_rng(0).normal(size=(pictures, len(examples))).astype(np.float32))
    made.append((task, scores, False))
    return made


def offer_predictions(made: list[tuple[Any, Path, bool]], rng: Random, mutate: Any, allowed: Any) -> None:
    task, path, structured = rng.choice(made)
    content = path.read_bytes()
    try:
        path.write_bytes(mutate(content, rng, structured))
        with allowed():
            report = score_file(task, task.card.report_split, path, allow_partial=rng.random() < 0.5)
            json.dumps(report.to_json_object(), allow_nan=False)
            score_table(report.task, report.split, report.results, report.notes, report.coverage, report.source)
            assert all(0 <= one.value <= 100 for one in report.results if "accuracy" in one.metric)
    finally:
        path.write_bytes(content)


TEXTS = ("", "\x1b[31mred", "a|b", "{", "null", "[1]", '{"most": {"a": [1]}}', '{"value": 3}', "9" * 5000, "x" * 9000)
NUMBERS = (None, 0.0, -1.0, 1e308, float("nan"), float("inf"))


def change_cells(content: bytes, rng: Random) -> bytes:
    """The same table with another value in one cell, or with a column less or twice."""
    table = pq.read_table(io.BytesIO(content))
    number = rng.randrange(table.num_columns)
    field = table.schema.field(number)
    if rng.random() < 0.2:
        table = (
            table.drop_columns([field.name]) if rng.random() < 0.5 else table.append_column(field, table.column(number))
        )
    else:
        values = table.column(number).to_pylist()
        row = rng.randrange(len(values))
        kinds = {"string": (None, *TEXTS), "double": NUMBERS}
        values[row] = rng.choice(kinds.get(str(field.type), (None, [])))
        table = table.set_column(number, field, pa.array(values, field.type))
    made = io.BytesIO()
    pq.write_table(table, made)
    return made.getvalue()


def offer_run(run: Path, rng: Random, mutate: Any, allowed: Any) -> None:
    from vlbench.records.folder import read_run

    name = rng.choice(("run.json", "samples.parquet"))
    content = (run / name).read_bytes()
    try:
        cells = name == "samples.parquet" and rng.random() < 0.7
        changed = change_cells(content, rng) if cells else mutate(content, rng, name == "run.json")
        (run / name).write_bytes(changed)
        with allowed():
            shown = show_rows(run, wrong=rng.random() < 0.5, n=1000) + run_table(read_run(run))
            assert "\x1b" not in shown
    finally:
        (run / name).write_bytes(content)


@settings(max_examples=150)
@given(rng=st.randoms(use_true_random=False))
def test_predictions(rng: Random, predictions: Any, mutate: Any, sentence_or_result: Any) -> None:
    offer_predictions(predictions, rng, mutate, sentence_or_result)


@settings(max_examples=100)
@given(rng=st.randoms(use_true_random=False))
def test_runs(rng: Random, run: Path, mutate: Any, sentence_or_result: Any) -> None:
    offer_run(run, rng, mutate, sentence_or_result)


@pytest.mark.slow
@settings(max_examples=600, derandomize=False)
@given(rng=st.randoms(use_true_random=False))
def test_predictions_for_long(rng: Random, predictions: Any, mutate: Any, sentence_or_result: Any) -> None:
    offer_predictions(predictions, rng, mutate, sentence_or_result)


@pytest.mark.slow
@settings(max_examples=600, derandomize=False)
@given(rng=st.randoms(use_true_random=False))
def test_runs_for_long(rng: Random, run: Path, mutate: Any, sentence_or_result: Any) -> None:
    offer_run(run, rng, mutate, sentence_or_result)
