"""`vlbench score` against what the official scorers printed for the same files (tests/golden)."""

import json
import shutil

import numpy as np
import pytest

K = (1, 5, 10)


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


def test_gqa_balanced_questions_with_predictions_for_all(gqa, score):
    root, predictions, expected = gqa
    report = score("gqa", root, "val", predictions)
    names = ("accuracy", "binary", "open", "validity", "plausibility", "distribution")
    assert {name: report["scores"][name]["value"] for name in names} == pytest.approx(
        {name: expected[name] for name in names}, abs=1e-9
    )
    assert "consistency" not in report["scores"]
    assert report["coverage"]["scored"] == report["n"] == 199
    assert "61 predictions of val_all were left out: they answer no example of this split" in report["notes"]
    assert any("consistency is absent" in note and "val_all_questions.json" in note for note in report["notes"])


def test_ids_of_no_split_stay_an_error(gqa, vlbench, tmp_path):
    root, predictions, _ = gqa
    given = [*json.loads(predictions.read_text("utf8")), {"questionId": "0", "prediction": "yes"}]
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(given), encoding="utf8")
    arguments = ("score", "--task", "gqa", "--data-root", root, "--split", "val", "--allow-partial")
    done = vlbench(*arguments, "--predictions", answers)
    assert done.code == 7 and "1 extra (0)" in done.err
    (root / "val_all_questions.json").unlink()
    done = vlbench(*arguments, "--predictions", predictions)
    assert done.code == 7 and "61 extra" in done.err
    assert "not looked up in val_all, which holds this split" in done.err and "val_all_questions.json" in done.err


@pytest.mark.parametrize("part", ["balanced", "unbalanced"])
def test_nlvr2_part_with_predictions_for_all_of_dev(part, golden, score):
    root = golden / "metrics_nlvr2"
    expected = json.loads((root / "expected.json").read_text("utf8"))["predictions.csv"]
    report = score("nlvr2", root, f"{part}-dev", root / "predictions.csv")
    official = expected[f"compute_filtered_accuracy.py {part}/{part}_dev.json"]
    assert report["scores"]["accuracy"]["value"] == pytest.approx(official, abs=1e-9)
    left = len((root / "predictions.csv").read_text("utf8").splitlines()) - report["n"]
    assert f"{left:,} predictions of dev were left out: they answer no example of this split" in report["notes"]


def test_nlvr2_dev(golden, score, vlbench):
    root = golden / "metrics_nlvr2"
    expected = json.loads((root / "expected.json").read_text("utf8"))["predictions.csv"]["metrics.py dev.json"]
    report = score("nlvr2", root, "dev", root / "predictions.csv")
    found = {name: report["scores"][name]["value"] / 100 for name in expected}
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("split", ["dev", "balanced-dev"])
def test_nlvr2_answers_that_are_neither_true_nor_false_are_rejected(split, golden, vlbench):
    root = golden / "metrics_nlvr2"
    arguments = ("score", "--task", "nlvr2", "--data-root", root, "--split", split, "--allow-partial")
    done = vlbench(*arguments, "--predictions", root / "predictions_odd.csv")
    assert done.code == 7 and "answered with none of false, true" in done.err.lower()
    assert "another answer is rejected: it is neither counted as wrong nor left out" in done.err


FOLD, FOLDS, TEXTS = 12, 3, 5


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """Folds of 12 images with random scores that favor the right answers: root, image names, sentence ids, scores."""
    monkeypatch.setattr("vlbench.data.splits.karpathy.FOLD", FOLD)
    rng = np.random.default_rng(3)
    images = FOLD * FOLDS
    names = [f"COCO_val2014_{number:012d}" for number in rng.permutation(10_000)[:images]]
    ids = [str(number) for number in rng.permutation(100_000)[: images * TEXTS]]
    entries = [
        {
            "filename": f"{name}.jpg",
            "filepath": "val2014",
            "split": "test",
            "sentences": [{"raw": "a dog", "sentid": int(ids[row * TEXTS + place])} for place in range(TEXTS)],
        }
        for row, name in enumerate(names)
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": entries}), encoding="utf8")
    scores = rng.standard_normal((images, images * TEXTS))
    scores[np.arange(images * TEXTS) // TEXTS, np.arange(images * TEXTS)] += 1.5
    return tmp_path, names, ids, scores


def official_folds(scores):
    """R@K per fold, averaged, by sorting as VSE++ does: each query against its own fold's candidates only."""
    found = {}
    for fold in range(FOLDS):
        images = slice(fold * FOLD, (fold + 1) * FOLD)
        texts = slice(fold * FOLD * TEXTS, (fold + 1) * FOLD * TEXTS)
        part = scores[images, texts]
        tr = [min(np.flatnonzero(np.argsort(row)[::-1] // TEXTS == place)) for place, row in enumerate(part)]
        ir = [np.flatnonzero(np.argsort(row)[::-1] == place // TEXTS)[0] for place, row in enumerate(part.T)]
        for k in K:
            found.setdefault(f"tr_r{k}", []).append(100 * np.mean(np.array(tr) < k))
            found.setdefault(f"ir_r{k}", []).append(100 * np.mean(np.array(ir) < k))
    return {name: float(np.mean(values)) for name, values in found.items()}


def write_lists(path, names, ids, scores, depth=None):
    """Every query's best candidates of the whole gallery, best first."""
    lists = {
        "i2t": {
            name: [ids[place] for place in np.argsort(-row)[:depth]] for name, row in zip(names, scores, strict=True)
        },
        "t2i": {
            name: [names[place] for place in np.argsort(-row)[:depth]] for name, row in zip(ids, scores.T, strict=True)
        },
    }
    path.write_text(json.dumps(lists), encoding="utf8")
    return path


def test_lists_over_the_whole_gallery_are_scored_by_folds(coco, score):
    root, names, ids, scores = coco
    report = score("coco_retrieval", root, "test_1k", write_lists(root / "lists.json", names, ids, scores))
    expected = official_folds(scores)
    assert {name: report["scores"][name]["value"] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["ir_r1"] < 90
    whole = score("coco_retrieval", root, "test", root / "lists.json")
    assert whole["scores"]["ir_r1"]["value"] < expected["ir_r1"]
    assert any("36 i2t lists rank a larger gallery" in note for note in report["notes"])


@pytest.mark.parametrize("depth", [6, 15, 30, 34])
def test_cut_lists_over_the_whole_gallery_give_the_same_or_nothing(depth, coco, score):
    root, names, ids, scores = coco
    report = score("coco_retrieval", root, "test_1k", write_lists(root / "lists.json", names, ids, scores, depth))
    expected = official_folds(scores)
    found = {name: one["value"] for name, one in report["scores"].items() if name in expected}
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-9)
    absent = [note for note in report["notes"] if "end above their right answer" in note]
    assert all(any(name in note for note in absent) for name in expected.keys() - found.keys())
    assert found if depth > 6 else absent


def test_queries_and_candidates_of_no_split_stay_an_error(coco, vlbench):
    root, names, ids, scores = coco
    arguments = ("score", "--task", "coco_retrieval", "--data-root", root, "--split", "test_1k", "--allow-partial")
    path = write_lists(root / "lists.json", names, ids, scores)
    lists = json.loads(path.read_text("utf8"))
    for changed in (
        {"i2t": lists["i2t"] | {"COCO_val2014_000000999999": [ids[0]]}},
        {"i2t": lists["i2t"] | {names[0]: ["999999"]}},
    ):
        path.write_text(json.dumps(changed), encoding="utf8")
        done = vlbench(*arguments, "--predictions", path)
        assert done.code == 5 and "999999" in done.err
