from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from vlbench.core.errors import VlbenchError
from vlbench.core.record import RunRecord
from vlbench.report.export import export


def other(record: RunRecord, **changed: object) -> RunRecord:
    return record.model_copy(update={"task": record.task.model_copy(update=changed)})


def test_lm_eval(record: RunRecord) -> None:
    content = json.loads(export([record, other(record, name="gqa")], "lm-eval"))
    assert content["results"]["nlvr2"] == {
        "alias": "nlvr2", "accuracy,none": 58.325, "accuracy_stderr,none": "N/A",
        "consistency,none": 12.5, "consistency_stderr,none": "N/A",
    }  # fmt: skip
    assert content["n-samples"]["gqa"] == {"original": 4000, "effective": 4000}
    assert content["higher_is_better"]["nlvr2"] == {"accuracy": True, "consistency": True}
    assert content["config"]["model_args"] == "cvlp-tiny"


def test_lm_eval_holds_one_model_and_each_task_once(record: RunRecord) -> None:
    with pytest.raises(VlbenchError, match="nlvr2 comes twice"):
        export([record, record], "lm-eval")
    vilt = record.model_copy(update={"model": record.model.model_copy(update={"name": "vilt"})})
    with pytest.raises(VlbenchError, match="these runs are of cvlp-tiny, vilt-tiny"):
        export([record, vilt], "lm-eval")


def test_the_hub_reads_its_model_index(record: RunRecord) -> None:
    card = ModelCard(export([record, other(record, name="flickr", source="real", split="test")], "hf-model-index"))
    data = card.data
    assert isinstance(data, ModelCardData) and data.model_name == "cvlp-tiny" and data.eval_results
    read = [(one.dataset_type, one.dataset_split, one.metric_type, one.metric_value) for one in data.eval_results]
    assert read == [
        ("nlvr2", "test-p", "accuracy", 58.325), ("nlvr2", "test-p", "consistency", 12.5),
        ("flickr", "test", "accuracy", 58.325), ("flickr", "test", "consistency", 12.5),
    ]  # fmt: skip
    assert data.eval_results[0].dataset_name == "NLVR2 (vlbench's built-in world)"
    assert data.eval_results[2].dataset_name == "flickr"


def test_csv_is_tidy(record: RunRecord) -> None:
    rows = list(csv.DictReader(io.StringIO(export([record], "csv"))))
    assert [(row["metric"], row["slice"], row["value_of_slice"], row["value"], row["n"]) for row in rows] == [
        ("accuracy", "", "", "58.325", "4000"),
        ("accuracy", "kind", "count", "55.5", "400"),
        ("accuracy", "kind", "spatial", "61.25", "3600"),
        ("consistency", "", "", "12.5", "1000"),
    ]
    assert (rows[0]["ci95_low"], rows[3]["ci95_low"], rows[0]["limit"]) == ("56.7512", "", "")


def test_what_is_refused(record: RunRecord) -> None:
    with pytest.raises(VlbenchError, match="unknown format 'cvs': did you mean 'csv'"):
        export([record], "cvs")
    with pytest.raises(VlbenchError, match="cvlp on nlvr2 is failed, not done"):
        export([record.model_copy(update={"status": "failed"})], "csv")


def test_the_command(vlbench, folder: Path, record: RunRecord, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from vlbench.records.folder import RunFolder

    RunFolder(folder).write_record(record)
    assert vlbench("export", tmp_path, "--to", "csv").out == export([record], "csv")
    assert vlbench("export", folder, "--to", "csv", "-o", tmp_path / "out.csv").code == 0
    assert (tmp_path / "out.csv").read_text("utf8") == export([record], "csv")
    assert "holds no run" in vlbench("export", tmp_path / "none", "--to", "csv").err
