import math

import pytest

from vlbench.core.columns import Chosen, columns_of
from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Example, Label, Query
from vlbench.core.results import MetricAbsentError, Prediction, Score
from vlbench.metrics.accuracy import accuracy, consistency
from vlbench.metrics.coverage import in_order
from vlbench.metrics.scoring import cut_groups, score

METRICS = {"accuracy": accuracy, "consistency": consistency}
KINDS = ["count", "count", "exists", "exists", None]
EXAMPLES = [
    Example(f"e{number}", Query((), ""), Label("True"), f"g{number // 2}", {"kind": kind} if kind else {})
    for number, kind in enumerate(KINDS)
]
PREDICTIONS = [
    Prediction(f"e{number}", answer) for number, answer in enumerate(["true", "true", "true", "false", "true"])
]


def test_every_metric_has_a_result_and_the_main_one_its_slices():
    results = score(METRICS, "accuracy", ["kind", "absent"], PREDICTIONS, EXAMPLES).results
    assert [(result.metric, result.value, result.n) for result in results] == [
        ("accuracy", 80.0, 5),
        ("consistency", pytest.approx(200 / 3), 3),
    ]
    assert {value: (part.value, part.n) for value, part in results[0].slices["kind"].items()} == {
        "count": (100.0, 2),
        "exists": (50.0, 2),
    }
    assert list(results[0].slices) == ["kind"] and results[1].slices == {}
    assert results[0].stderr is not None and "test sampling only" in results[0].method


def test_any_metric_can_be_the_main_one():
    results = score(METRICS, "consistency", ["kind"], PREDICTIONS, EXAMPLES).results
    assert results[0].slices == {}
    assert results[1].slices["kind"]["exists"].value == 0.0


def test_ids_must_match():
    with pytest.raises(CoverageError, match="1 missing"):
        score(METRICS, "accuracy", ["kind"], PREDICTIONS[1:], EXAMPLES)


def test_scores_that_are_no_numbers_are_refused():
    bad = [*PREDICTIONS[:-1], Prediction("e4", "true", {"true": math.nan})]
    with pytest.raises(DataError, match=r"1 predictions have scores that are not finite \(e4\)"):
        score(METRICS, "accuracy", [], bad, EXAMPLES)


def test_a_metric_that_is_no_number_is_refused():
    def broken(predictions, examples):
        return Score("broken", math.nan, len(examples), None, None, {})

    with pytest.raises(DataError, match="broken is nan"):
        score({"broken": broken}, "broken", [], PREDICTIONS, EXAMPLES)


def test_a_metric_without_evidence_is_absent_with_its_reason():
    def blind(predictions, examples):
        raise MetricAbsentError("no boxes in the data")

    scores = score({"grounding": blind, "accuracy": accuracy}, "accuracy", [], PREDICTIONS, EXAMPLES)
    assert [result.metric for result in scores.results] == ["accuracy"]
    assert scores.notes == ("grounding is absent: no boxes in the data",)


def test_slices_of_a_mean_equal_the_metric_over_the_part():
    scores = score(METRICS, "accuracy", ["kind"], PREDICTIONS, EXAMPLES)
    part = [example for example in EXAMPLES if example.tags.get("kind") == "exists"]
    direct = accuracy([p for p in PREDICTIONS if p.example_id in {e.id for e in part}], part)
    found = scores.results[0].slices["kind"]["exists"]
    assert (found.value, found.n, found.ci95, found.stderr) == (direct.value, direct.n, direct.ci95, direct.stderr)


def test_slices_improve_in_the_direction_of_the_metric():
    def errors(predictions, examples):
        values = {one.example_id: float(one.answer != "true") for one in predictions}
        return Score("errors", 20.0, 5, None, None, values, higher_is_better=False)

    (result,) = score({"errors": errors}, "errors", ["kind"], PREDICTIONS, EXAMPLES).results
    assert result.higher_is_better is False
    assert [part.higher_is_better for part in result.slices["kind"].values()] == [False, False]


def test_metrics_share_the_columns_and_the_order_of_predictions():
    """The references are gone over once per derived column, however many metrics there are."""
    passes = []

    def reading(predictions, examples):
        columns = columns_of(examples)
        columns.derive(counted)
        passes.append((in_order(predictions, examples), columns))
        return accuracy(predictions, examples)

    def counted(columns):
        passes.append("derived")
        return

    score({"a": reading, "b": reading}, "a", ["kind"], PREDICTIONS[::-1], EXAMPLES)
    assert passes.count("derived") == 1
    (first, columns), (second, others) = (item for item in passes if item != "derived")
    assert first is second and columns is others
    assert [item.example_id for item in first] == [example.id for example in EXAMPLES]


def test_cut_groups_are_found_without_making_an_example(monkeypatch):
    monkeypatch.setattr(Chosen, "take", lambda self, rows: pytest.fail("an example is made"))
    lazy = Chosen(EXAMPLES, range(len(EXAMPLES)))
    for scored in ([0], range(3), range(len(EXAMPLES))):
        of_lists = cut_groups(EXAMPLES, [EXAMPLES[row] for row in scored])
        assert cut_groups(lazy, Chosen(EXAMPLES, scored)) == of_lists
        kept = {EXAMPLES[row].group for row in scored}
        assert of_lists == {row.group for number, row in enumerate(EXAMPLES) if number not in scored} & kept
