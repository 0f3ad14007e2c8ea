"""`vlbench score` against what the official scorers printed for the same files (tests/golden)."""

import json
import shutil

import pytest


@pytest.fixture
def score(vlbench):
    """Scores a file of predictions by the command line and returns the report."""

    def scored(task, root, split, predictions):
        arguments = ("--task", task, "--data-root", root, "--split", split, "--predictions", predictions)
        done = vlbench("score", *arguments, "--allow-partial", "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return scored


@pytest.fixture
def gqa(golden, tmp_path):
    """A data root of GQA with the golden records, and the official values."""
    folder = golden / "metrics_gqa"
    for name in ("val_all_questions", "val_balanced_questions", "val_choices"):
        shutil.copy(folder / f"{name}.json", tmp_path / f"{name}.json")
    return tmp_path, folder / "predictions.json", json.loads((folder / "expected.json").read_text("utf8"))


def test_gqa_over_all_questions(gqa, score):
    root, predictions, expected = gqa
    report = score("gqa", root, "val_all", predictions)
    names = ("accuracy", "binary", "open", "validity", "plausibility", "consistency", "distribution")
    found = {name: report["scores"][name]["value"] for name in names}
    assert found == pytest.approx({name: expected[name] for name in names}, abs=1e-9)
    kinds = {"structural": "accuracyPerStructuralType", "semantic": "accuracyPerSemanticType",
             "length": "accuracyPerLength", "steps": "accuracyPerSteps"}  # fmt: skip
    for tag, key in kinds.items():
        parts = {
            name: [part["accuracy"]["value"], part["accuracy"]["n"]] for name, part in report["slices"][tag].items()
        }
        assert parts.keys() == expected[key].keys()
        assert all(parts[name] == pytest.approx(expected[key][name], abs=1e-9) for name in parts)
