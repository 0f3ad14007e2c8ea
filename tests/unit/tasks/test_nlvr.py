import csv
import dataclasses
import hashlib
import io
import json
import random
from collections import defaultdict

import pytest

from vlbench.core.errors import DataError
from vlbench.core.results import Prediction

LINE = {"identifier": "1572-0", "sentence": "A box is empty.", "label": "true", "directory": "2", "evals": {}}


def write(root, *lines, split="dev"):
    path = root / split / f"{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(("split", "drawings", "sets"), [("dev", 5934, 267), ("test", 5940, 266)])
def test_official_files_are_read_whole(open_task, shared_data, split, drawings, sets):
    task = dataclasses.replace(open_task("nlvr", shared_data / "nlvr1"), allow_partial=False)
    examples = task.load(split)
    assert (len(examples), len({example.group for example in examples})) == (drawings, sets)
    on_disk = set((shared_data / "nlvr1" / split).rglob("*.png"))
    assert {image.path for example in examples for image in example.query.images} == on_disk
    md5 = hashlib.md5(task.files(split).path("annotations").read_bytes()).hexdigest()
    assert task.card.splits[split].md5["annotations"] == md5


def test_metrics_are_those_of_the_official_csv(open_task, shared_data):
    task, toss = open_task("nlvr", shared_data / "nlvr1"), random.Random(3)
    lines = [json.loads(line) for line in (shared_data / "nlvr1/test/test.json").read_text().splitlines()]
    truth = {f"test-{line['identifier']}-{k}.png": line["label"] for line in lines for k in range(6)}
    flip = {"true": "False", "false": "True"}
    table = "".join(f"{name},{flip[label] if toss.random() < 0.03 else label}\n" for name, label in truth.items())

    guesses = dict(csv.reader(io.StringIO(table)))
    sets = defaultdict(list)
    for name, label in truth.items():
        sets[name.split("-")[1]].append(guesses[name].lower() == label)
    right, whole = sum(map(sum, sets.values())) / len(truth), sum(map(all, sets.values())) / len(sets)

    predictions = [Prediction(name, answer) for name, answer in guesses.items()]
    measured = {name: metric(predictions, task.load("test")).value for name, metric in task.metrics.items()}
    assert 0 < whole < right < 1
    assert measured == {"accuracy": pytest.approx(100 * right, 1e-12), "consistency": pytest.approx(100 * whole, 1e-12)}


def test_a_line_becomes_six_examples(open_task, tmp_path):
    write(tmp_path, {**LINE, "label": "True"})
    examples = open_task("nlvr", tmp_path).load("dev")
    assert [example.id for example in examples] == [f"dev-1572-0-{k}.png" for k in range(6)]
    assert {(example.group, example.reference.value, example.query.text) for example in examples} == {
        ("dev-1572", "true", "A box is empty.")
    }
    (image,) = examples[4].query.images
    assert (image.path, image.key) == (tmp_path / "dev/images/2/dev-1572-0-4.png", "dev-1572-0-4")


def test_hidden_drawings_are_found_by_name(open_task, tmp_path):
    write(tmp_path, {key: value for key, value in LINE.items() if key != "directory"}, split="hidden")
    drawing = tmp_path / "hidden/images/7/hidden-1572-0-5.png"
    drawing.parent.mkdir(parents=True)
    drawing.touch()
    paths = [example.query.images[0].path for example in open_task("nlvr", tmp_path).load("hidden")]
    assert paths[5] == drawing
    assert paths[0] == tmp_path / "hidden/images/hidden-1572-0-0.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "yes"}, r"dev\.json, line 2: 'label' is 'yes'"),
        ({"identifier": "../1-0"}, r"dev\.json, line 2: 'identifier' is '\.\./1-0'"),
        ({"directory": "../.."}, r"dev\.json, line 2: 'directory' is '\.\./\.\.'"),
        ({}, r"holds ids twice: dev-1572-0-0\.png, .* and 1 more"),
    ],
)
def test_faults_are_named(open_task, tmp_path, change, message):
    write(tmp_path, LINE, {**LINE, **change})
    with pytest.raises(DataError, match=message):
        open_task("nlvr", tmp_path).load("dev")


def test_the_released_hidden_split_is_known(open_task, tmp_path):
    """985 lines, six images each, as the file that was released in 2022."""
    hidden = open_task("nlvr", tmp_path).card.splits["hidden"]
    assert (hidden.count, hidden.md5) == (6 * 985, {"annotations": "fb4066fee3fa1d0f64ae2e57b4d23ceb"})
