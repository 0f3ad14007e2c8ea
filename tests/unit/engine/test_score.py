import json

import pytest

from vlbench.core.cards import TaskCard
from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Example, Label, Query
from vlbench.core.task import Task
from vlbench.core.validate import parse
from vlbench.engine.score import score_file
from vlbench.metrics.accuracy import accuracy, consistency

CARD = {
    **dict.fromkeys(("title", "description", "homepage", "licence", "citation"), "text"),
    "name": "toy",
    "version": 1,
    "output": "pair",
    "images_per_example": 2,
    "labels": ["False", "True"],
    "metrics": {"accuracy": "module:accuracy", "consistency": "module:consistency"},
    "main_metric": "accuracy",
    "slices": ["kind"],
    "splits": {name: {"files": {}} for name in ("train", "dev", "test")},
    "train_split": "train",
    "select_on": "dev",
    "report_split": "test",
}
EXAMPLES = [
    Example(f"dev-{number}", Query((), "text"), Label("True"), f"g{number // 2}", {"kind": "count"})
    for number in range(6)
]
ROWS = [f"dev-{number},{answer}" for number, answer in enumerate(["true", "true", "False", "TRUE", "true", "True"])]


@pytest.fixture
def task(tmp_path):
    metrics = {"accuracy": accuracy, "consistency": consistency}
    return Task(parse(TaskCard, CARD, "card"), tmp_path, "real", lambda files: iter(EXAMPLES), metrics)


@pytest.fixture
def predictions(tmp_path):
    def written(rows):
        path = tmp_path / "predictions.csv"
        path.write_text("\n".join(rows))
        return path

    return written


def test_report(task, predictions):
    report = score_file(task, "dev", predictions(ROWS))
    value = {result.metric: (result.value, result.n) for result in report.results}
    assert value == {"accuracy": (pytest.approx(500 / 6), 6), "consistency": (pytest.approx(200 / 3), 3)}
    assert (report.task, report.split, report.n, report.notes) == ("toy", "dev", 6, ())


def test_json_object_has_the_documented_shape(task, predictions):
    shown = json.loads(json.dumps(score_file(task, "dev", predictions(ROWS)).to_json_object()))
    assert list(shown) == ["task", "split", "n", "scores", "slices", "coverage", "source", "notes"]
    assert list(shown["scores"]) == ["accuracy", "consistency"]
    assert set(shown["scores"]["accuracy"]) == {"value", "n", "stderr", "ci95"}
    assert len(shown["scores"]["accuracy"]["ci95"]) == 2
    assert shown["slices"]["kind"]["count"]["accuracy"] == shown["scores"]["accuracy"]
    assert shown["coverage"] == {"expected": 6, "scored": 6, "missing": 0, "duplicate": 0, "errors": 0, "unparsed": 0}


def test_missing_ids_end_without_a_score_unless_allowed(task, predictions):
    path = predictions(ROWS[:4])
    with pytest.raises(CoverageError, match=r"2 missing \(dev-4, dev-5\)"):
        score_file(task, "dev", path)
    report = score_file(task, "dev", path, allow_partial=True)
    assert (report.n, report.results[0].value, report.results[0].n) == (4, 75.0, 4)
    assert (report.coverage.expected, report.coverage.scored, report.coverage.missing) == (6, 4, 2)
    assert report.notes == ("2 of 6 examples have no prediction and are left out",)


def test_groups_are_not_counted_by_their_fragments(task, predictions):
    """Of g1 one example is left, which is wrong, of g2 none; g0 is whole."""
    report = score_file(task, "dev", predictions(ROWS[:3]), allow_partial=True)
    assert [result.metric for result in report.results] == ["accuracy"]
    assert report.notes[-1] == (
        "consistency is absent: 1 of its 2 groups lack examples, as only a part of the split is scored"
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, ROWS[0]], r"1 duplicate \(dev-0\)"),
        ([*ROWS, "dev-9,True"], r"1 extra \(dev-9\)"),
        ([*ROWS[:-1], "dev-5,maybe"], r"1 answered with none of False, True \(dev-5: 'maybe'\)"),
    ],
)
@pytest.mark.parametrize("allow_partial", [False, True])
def test_other_faults_are_never_allowed(task, predictions, rows, message, allow_partial):
    with pytest.raises(CoverageError, match=message):
        score_file(task, "dev", predictions(rows), allow_partial)


def test_an_absent_file_is_named(task, tmp_path):
    with pytest.raises(DataError, match="cannot read predictions"):
        score_file(task, "dev", tmp_path / "absent.csv")


def test_an_empty_split_is_not_the_default_one(vlbench, tmp_path):
    arguments = ("--task", "nlvr2", "--data-root", tmp_path, "--split", "")
    done = vlbench("score", *arguments, "--predictions", tmp_path / "absent.csv")
    assert (done.code, done.out) == (2, "") and "unknown split of nlvr2 ''" in done.err
    done = vlbench("data", "check", *arguments)
    assert done.code == 2 and "empty name" in done.err


def test_ranks_of_a_run_on_another_split_are_rejected(vlbench, fake_run, tiny_world, tmp_path):
    """Queries may be the same in a split and in its folds; the candidates, and so the ranks, are others."""
    (tmp_path / "run.json").write_bytes((fake_run / "run.json").read_bytes())
    (tmp_path / "ranks.parquet").write_bytes(b"")
    done = vlbench(
        *("score", "--task", "coco_retrieval", "--data-root", tiny_world, "--predictions", tmp_path / "ranks.parquet")
    )
    assert done.code == 5
    assert (
        "ranks among the candidates of nlvr2, split test-p, where coco_retrieval, split test, is expected" in done.err
    )
