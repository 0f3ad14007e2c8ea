from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vlbench.core.errors import VlbenchError
from vlbench.core.record import Result, RunRecord
from vlbench.report.export import export


def other(record: RunRecord, **changed: object) -> RunRecord:
    return record.model_copy(update={"task": record.task.model_copy(update=changed)})


def test_lm_eval(record: RunRecord) -> None:
    content = json.loads(export([record, other(record, name="gqa")], "lm-eval"))
    assert content["results"]["vlbench_world_nlvr2"] == {
        "alias": "nlvr2 (built-in world)", "accuracy,none": pytest.approx(0.58325), "accuracy_stderr,none": "N/A",
        "consistency,none": 0.125, "consistency_stderr,none": "N/A",
    }  # fmt: skip
    assert content["n-samples"]["vlbench_world_gqa"] == {"original": 4000, "effective": 4000}
    assert content["higher_is_better"]["vlbench_world_nlvr2"] == {"accuracy": True, "consistency": True}
    assert content["config"]["model_args"] == "cvlp-tiny"
    assert content["configs"]["vlbench_world_nlvr2"]["metadata"] == {
        "version": 1, "data": "built-in world (plain)", "protocol": "finetune on train", "seed": 0,
        "units": {"accuracy": "fraction", "consistency": "fraction"},
    }  # fmt: skip
    real = json.loads(export([other(record, source="real")], "lm-eval"))
    assert real["results"]["nlvr2"]["alias"] == "nlvr2"
    assert real["configs"]["nlvr2"]["metadata"]["data"] == "real data"


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
        ("vlbench_world_nlvr2", "test-p", "accuracy", 58.325), ("vlbench_world_nlvr2", "test-p", "consistency", 12.5),
        ("flickr", "test", "accuracy", 58.325), ("flickr", "test", "consistency", 12.5),
    ]  # fmt: skip
    assert data.eval_results[0].dataset_name == "NLVR2 (vlbench's built-in world)"
    assert data.eval_results[2].dataset_name == "flickr"


def of_seed(record: RunRecord, seed: int, value: float) -> RunRecord:
    results = (record.results[0].model_copy(update={"value": value}), *record.results[1:])
    spec = record.spec.model_copy(update={"seed": seed})
    return record.model_copy(update={"spec": spec, "results": results})


def hub(records: list[RunRecord], source_url: str = "") -> list[EvalResult]:
    """The figures as the hub's own classes read them from the card."""
    data = ModelCard(export(records, "hf-model-index", source_url)).data
    assert isinstance(data, ModelCardData) and data.eval_results
    return data.eval_results


def test_the_hub_hears_what_makes_a_number_partial(record: RunRecord) -> None:
    (whole, *_), (part, *_) = hub([record]), hub([other(record, n_scored=300, n_total=4096, limit=300.0)])
    assert part.dataset_name == "NLVR2 (vlbench's built-in world, 300 of 4,096 examples)"
    (textured, *_) = hub([record.model_copy(update={"spec": record.spec.model_copy(update={"domain": "textured"})})])
    assert textured.dataset_name == "NLVR2 (vlbench's built-in world, textured)"
    assert part.metric_args == {
        "protocol": "finetune on train", "seeds": [0], "n": 4000, "limit": 300.0,
        "evaluated_with": "vlbench 0.1.0", "ci95": [56.7512, 59.9],
    }  # fmt: skip
    assert whole.metric_args and "limit" not in whole.metric_args


def test_the_hub_has_one_figure_of_several_seeds(record: RunRecord) -> None:
    accuracy, consistency = hub([of_seed(record, seed, value) for seed, value in ((2, 60.0), (0, 50.0), (1, 58.0))])
    assert (accuracy.metric_value, consistency.metric_value) == (pytest.approx(56.0), pytest.approx(12.5))
    assert accuracy.metric_args and accuracy.metric_args["seeds"] == [0, 1, 2]


@pytest.mark.parametrize("change", [{}, {"limit": 300.0}, {"mode": "eval"}])
def test_the_hub_gets_no_two_figures_for_one_thing(record: RunRecord, change: dict[str, object]) -> None:
    seed = {"seed": 1} if change else {}
    again = record.model_copy(update={"spec": record.spec.model_copy(update=change | seed)})
    with pytest.raises(VlbenchError, match="one value for nlvr2 test-p, and 2 runs of it differ in more"):
        export([record, again], "hf-model-index")


def test_lm_eval_says_one_limit(record: RunRecord) -> None:
    limited = other(record, name="gqa", limit=300.0)
    with pytest.raises(VlbenchError, match="these runs have 300, none"):
        export([record, limited], "lm-eval")
    assert json.loads(export([limited], "lm-eval"))["config"]["limit"] == 300


def test_csv_is_tidy(record: RunRecord) -> None:
    rows = list(csv.DictReader(io.StringIO(export([record], "csv"))))
    assert [(row["metric"], row["slice"], row["value_of_slice"], row["value"], row["n"]) for row in rows] == [
        ("accuracy", "", "", "58.325", "4000"),
        ("accuracy", "kind", "count", "55.5", "400"),
        ("accuracy", "kind", "spatial", "61.25", "3600"),
        ("consistency", "", "", "12.5", "1000"),
    ]
    assert {(row["domain"], row["protocol"]) for row in rows} == {("plain", "finetune on train")}
    assert next(csv.DictReader(io.StringIO(export([other(record, source="real")], "csv"))))["domain"] == ""
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
    shutil.copytree(folder, tmp_path / "copy")
    assert vlbench("export", tmp_path, folder, "--to", "csv").out == export([record], "csv")
    shutil.copy(folder / "run.json", tmp_path / "nlvr2-cvlp.json")
    assert vlbench("export", tmp_path / "nlvr2-cvlp.json", "--to", "csv").out == export([record], "csv")
    assert "none is not there" in vlbench("export", tmp_path / "none", "--to", "csv").err


def test_only_percentages_become_fractions(record: RunRecord) -> None:
    """As lm-evaluation-harness holds an accuracy of 58.325 percent: 0.58325; its standard error too."""
    values = {
        "accuracy": 58.325,
        "tr_r1": 41.0,
        "rsum": 422.2,
        "rsum_expected": 400.0,
        "tr_medr": 3.0,
        "distribution": 0.2,
    }
    lower = {"tr_medr", "distribution"}
    results = tuple(
        Result(metric=name, value=value, n=100, stderr=2.0, higher_is_better=name not in lower)
        for name, value in values.items()
    )
    content = json.loads(export([other(record.model_copy(update={"results": results}), source="real")], "lm-eval"))
    found = content["results"]["nlvr2"]
    expected = {
        "accuracy": 0.58325,
        "tr_r1": 0.41,
        "rsum": 422.2,
        "rsum_expected": 400.0,
        "tr_medr": 3.0,
        "distribution": 0.2,
    }
    assert {name: found[f"{name},none"] for name in values} == pytest.approx(expected)
    assert (found["accuracy_stderr,none"], found["rsum_stderr,none"]) == (pytest.approx(0.02), 2.0)
    units = content["configs"]["nlvr2"]["metadata"]["units"]
    assert [name for name, unit in units.items() if unit == "fraction"] == ["accuracy", "tr_r1"]


def test_the_world_has_no_real_data_sets_type(record: RunRecord) -> None:
    textured = record.model_copy(update={"spec": record.spec.model_copy(update={"domain": "textured"})})
    for run, name in ((record, "vlbench_world_nlvr2"), (textured, "vlbench_world_nlvr2_textured")):
        assert {one.dataset_type for one in hub([run])} == {name}
        content = json.loads(export([run], "lm-eval"))
        assert all(list(content[key]) == [name] for key in ("results", "configs", "versions", "n-shot", "n-samples"))
        assert content["configs"][name]["task"] == name
    both = hub([record, other(record, source="real")])
    assert [one.dataset_type for one in both] == ["vlbench_world_nlvr2"] * 2 + ["nlvr2"] * 2


def test_the_hub_hears_the_name_the_source_and_the_interval(record: RunRecord) -> None:
    accuracy, consistency = hub([record], "https://example.org/runs")
    assert (accuracy.metric_name, consistency.metric_name) == ("Accuracy", "Consistency")
    assert (accuracy.source_name, accuracy.source_url) == ("vlbench 0.1.0", "https://example.org/runs")
    unnamed = hub([record])[0]
    assert (
        unnamed.source_url is None and unnamed.metric_args and unnamed.metric_args["evaluated_with"] == "vlbench 0.1.0"
    )
    with pytest.raises(VlbenchError, match="is for --to hf-model-index, not csv"):
        export([record], "csv", "https://example.org/runs")
    assert record.results[0].ci95 is not None and accuracy.metric_args and consistency.metric_args
    assert accuracy.metric_args["ci95"] == list(record.results[0].ci95) and "ci95" not in consistency.metric_args
    seeds, _ = hub([of_seed(record, seed, value) for seed, value in ((0, 50.0), (1, 54.0))])
    assert seeds.metric_args and seeds.metric_args["stdev_over_seeds"] == pytest.approx(8**0.5)
    assert "ci95" not in seeds.metric_args


@pytest.mark.parametrize(
    ("metric", "name"),
    [("tr_r5", "R@5, text retrieval"), ("ir_medr", "Median rank, image retrieval"), ("my_own", "my_own"),
     ("ir_r10_expected", "R@10, image retrieval, ties expected"), ("vqa_accuracy", "VQA accuracy")],
)  # fmt: skip
def test_metrics_have_names_in_words(record: RunRecord, metric: str, name: str) -> None:
    run = record.model_copy(update={"results": (Result(metric=metric, value=1.0, n=1),)})
    assert hub([run])[0].metric_name == name
