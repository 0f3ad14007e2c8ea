"""The modules of `evaluate`: loaded by path without a network, given batches, combined."""

import ast
import doctest
import json
from pathlib import Path

import numpy as np
import pytest

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Caption, Example, ImageRef, Label, Query
from vlbench.core.gallery import galleries
from vlbench.core.results import Prediction
from vlbench.metrics import accuracy as own
from vlbench.metrics import retrieval
from vlbench.metrics.hub import path
from vlbench.metrics.ranks import from_matrix

NAMES = ["accuracy", "consistency", "gqa", "retrieval", "vqa_accuracy"]
ANSWERS, LABELS = ["True", "false", "True", "no", "no"], ["True", "False", "False", "no", "no"]
GROUPS = ["a", "a", "b", "c", "c"]


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """The library with folders of its own, offline."""
    import evaluate
    from evaluate import config

    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "HF_EVALUATE_OFFLINE", True)
        patch.setattr(config, "HF_METRICS_CACHE", folder / "metrics")
        patch.setattr(config, "HF_MODULES_CACHE", str(folder / "modules"))
        patch.syspath_prepend(folder / "modules")
        yield evaluate


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_each_module_is_true(name, evaluate):
    text = ast.get_docstring(ast.parse(path(name).read_text(encoding="utf8")))
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert example.examples
    result = doctest.DocTestRunner().run(example)
    assert result.failed == 0


def test_every_module_is_found_by_name():
    files = {file.stem for file in path("accuracy").parent.glob("*.py")} - {"__init__"}
    assert sorted(files) == NAMES
    with pytest.raises(VlbenchError, match="'acuracy': did you mean 'accuracy'"):
        path("acuracy")


def test_values_are_those_of_the_metrics(evaluate):
    examples = [
        Example(str(row), Query((), ""), Label(label), group)
        for row, (label, group) in enumerate(zip(LABELS, GROUPS, strict=True))
    ]
    predictions = [Prediction(str(row), answer) for row, answer in enumerate(ANSWERS)]
    both = evaluate.combine([evaluate.load(str(path(name))) for name in ("accuracy", "consistency")])
    for rows in (slice(0, 2), slice(2, 5)):
        both.add_batch(predictions=ANSWERS[rows], references=LABELS[rows], groups=GROUPS[rows])
    expected = {
        "accuracy": own.accuracy(predictions, examples).value,
        "consistency": own.consistency(predictions, examples).value,
    }
    assert both.compute() == expected == {"accuracy": 80.0, "consistency": pytest.approx(200 / 3)}
    assert both.compute(predictions=ANSWERS, references=LABELS, groups=GROUPS) == expected


def test_vqa_accuracy_takes_batches_of_ten_answers(evaluate):
    module = evaluate.load(str(path("vqa_accuracy")))
    module.add_batch(predictions=["yes", "2"], references=[["yes"] * 10, ["two"] * 3 + ["3"] * 7])
    module.add_batch(predictions=["cat"], references=[["dog"] * 10])
    found = module.compute()
    assert found["vqa_accuracy"] == found["vqa_lenient"] == pytest.approx(100 * (1 + 0.9 + 0) / 3)
    assert found["vqa_simple"] == pytest.approx(100 * (1 + 1 + 0) / 3)


def test_gqa_takes_batches_and_leaves_out_what_it_cannot_judge(evaluate):
    module = evaluate.load(str(path("gqa")))
    question = {"image": "n1", "structural": "query", "detailed": "attr", "group": None, "entailed": []}
    question["plausible"] = None
    questions = [
        question | {"id": "1", "answer": "red", "valid": ["red", "blue"]},
        question | {"id": "2", "answer": "no", "structural": "verify", "entailed": ["1"], "valid": ["yes", "no"]},
    ]
    module.add_batch(predictions=["green"], references=questions[:1])
    module.add_batch(predictions=["no"], references=questions[1:])
    found = module.compute()
    assert found == {"accuracy": 50.0, "binary": 100.0, "open": 0.0, "validity": 50.0, "consistency": 0.0}


OFFICIAL = ("accuracy", "binary", "open", "validity", "plausibility", "distribution")


def official_gqa(golden):
    """Answers, questions and official values of the golden case; its groups and choices may be empty."""
    folder = golden / "metrics_gqa"
    names = ("val_balanced_questions", "val_choices", "predictions", "expected")
    asked, choices, given, expected = (json.loads((folder / f"{name}.json").read_text("utf8")) for name in names)
    questions = [
        {
            "id": name,
            "image": fields["imageId"],
            "answer": fields["answer"],
            "structural": fields["types"]["structural"],
            "detailed": fields["types"]["detailed"],
            "group": fields["groups"]["global"],
            "entailed": [],
            "valid": choices[name]["valid"],
            "plausible": choices[name]["plausible"],
        }
        for name, fields in asked.items()
    ]
    answers = {one["questionId"]: one["prediction"] for one in given}
    return [answers[name] for name in asked], questions, {name: expected[name] for name in OFFICIAL}


def test_gqa_gives_the_official_values(evaluate, golden):
    answers, questions, expected = official_gqa(golden)
    assert any(one["group"] == "" for one in questions) and any(one["group"] is None for one in questions)
    assert any(one["valid"] == [] for one in questions)
    found = evaluate.load(str(path("gqa"))).compute(predictions=answers, references=questions)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("key", "metric"), [("valid", "validity"), ("plausible", "plausibility")])
def test_gqa_tells_empty_choices_from_none(key, metric, evaluate, golden):
    answers, questions, _ = official_gqa(golden)
    empty = [one | {key: [], "detailed": "attr"} for one in questions]
    assert evaluate.load(str(path("gqa"))).compute(predictions=answers, references=empty)[metric] == 0.0
    absent = [one | {key: None} for one in questions]
    assert metric not in evaluate.load(str(path("gqa"))).compute(predictions=answers, references=absent)


def test_retrieval_takes_batches_of_rows(evaluate):
    generator = np.random.default_rng(1)
    owner = generator.permutation(np.repeat(np.arange(12), 3))
    scores = generator.standard_normal((12, 36)).astype(np.float32)
    scores[owner, np.arange(36)] += 1
    module = evaluate.load(str(path("retrieval")))
    for start in range(0, 12, 5):
        rows = range(start, min(start + 5, 12))
        columns = [np.flatnonzero(owner == row).tolist() for row in rows]
        module.add_batch(predictions=scores[rows].tolist(), references=columns)
    found = module.compute()
    # The images of a gallery are in the order in which their texts first name them, so the rows move with them.
    examples = [
        Example(f"t{column}", Query((ImageRef(Path(), str(row)),), ""), Caption(str(row)), "")
        for column, row in enumerate(owner)
    ]
    (gallery,) = galleries(examples)
    rankings = from_matrix(scores[[int(ref.key) for ref in gallery.images]], gallery)
    names = [f"{side}_{metric}" for side in ("tr", "ir") for metric in ("r1", "r5", "r10", "medr", "meanr")] + ["rsum"]
    assert found == {name: getattr(retrieval, name)(rankings, examples).value for name in names}
    assert 0 < found["ir_r1"] < 100


@pytest.mark.parametrize(
    ("scores", "columns", "message"),
    [
        ([[0.5, 0.1], [0.2]], [[0], [1]], "1 to 2 texts"),
        ([[0.5, 0.1], [0.2, 0.3]], [[0], [0]], "2 texts, 1 different ones"),
        ([[0.5, 0.1], [0.2, 0.3]], [[0], [2]], "counted from 0"),
        ([[0.5, float("nan")], [0.2, 0.3]], [[0], [1]], "row 0, column 1 is not a number"),
    ],
)
def test_a_matrix_must_be_whole(scores, columns, message, evaluate):
    module = evaluate.load(str(path("retrieval")), keep_in_memory=True)
    with pytest.raises(DataError, match=message):
        module.compute(predictions=scores, references=columns)
