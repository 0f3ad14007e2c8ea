import dataclasses
import hashlib
import importlib
import json
import random
from collections import defaultdict
from pathlib import Path

import pytest

from vlbench.core.errors import DataError
from vlbench.core.results import Prediction
from vlbench.metrics.baseline import majority

LINE = {"identifier": "dev-850-3-1", "sentence": "There is a dog.", "label": "True", "synset": "dog", "writer": "61"}


def write(root, *lines, name="data/dev.json"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("split", "count", "statements", "majority_accuracy"),
    [
        ("dev", 6982, 2018, 50.86),
        ("test-p", 6967, 1995, 51.07),
        ("balanced-dev", 2300, 1116, 50.0),
        ("unbalanced-dev", 3562, 1526, 50.59),
    ],
)
def test_official_files_are_read_whole(open_task, shared_data, split, count, statements, majority_accuracy):
    task = dataclasses.replace(open_task("nlvr2", shared_data / "nlvr2"), allow_partial=False)
    examples = task.load(split)
    assert (len(examples), len({example.group for example in examples})) == (count, statements)
    assert majority(task.metric("accuracy"), examples) == pytest.approx(majority_accuracy, abs=0.005)
    md5 = hashlib.md5(task.files(split).path("annotations").read_bytes()).hexdigest()
    assert task.card.splits[split].md5["annotations"] == md5


@pytest.mark.parametrize(("split", "name"), [("dev", "dev.json"), ("test-p", "test1.json")])
def test_random_predictions_score_as_computed_apart(open_task, shared_data, split, name):
    task = open_task("nlvr2", shared_data / "nlvr2")
    toss = random.Random(7)
    guesses = {example.id: toss.choice(["True", "false"]) for example in task.load(split)}
    statements = defaultdict(list)
    for line in (shared_data / "nlvr2" / name).read_text().splitlines():
        record = json.loads(line)
        where, number, _, sentence = record["identifier"].split("-")
        statements[where, number, sentence].append(guesses[record["identifier"]].lower() == record["label"].lower())
    right = sum(map(sum, statements.values())) / sum(map(len, statements.values()))
    whole = sum(map(all, statements.values())) / len(statements)

    predictions = [Prediction(name, answer) for name, answer in guesses.items()]
    measured = {name: metric(predictions, task.load(split)).value for name, metric in task.metrics.items()}
    assert measured == {"accuracy": pytest.approx(100 * right, 1e-12), "consistency": pytest.approx(100 * whole, 1e-12)}


def test_a_line_becomes_an_example(open_task, tmp_path):
    write(tmp_path, {**LINE, "label": "tRUE", "kind": "existence"})
    (example,) = open_task("nlvr2", tmp_path).load("dev")
    assert (example.id, example.group, example.reference.value) == ("dev-850-3-1", "dev-850-_-1", "True")
    assert example.query.text == "There is a dog."
    assert example.tags == {"kind": "existence", "synset": "dog"}
    assert [image.key for image in example.query.images] == ["dev-850-3-img0", "dev-850-3-img1"]
    assert example.query.images[1].path == tmp_path / "images/dev/dev-850-3-img1.png"


@pytest.mark.parametrize("name", ["data/dev.json", "nlvr2/data/dev.json", "dev.json"])
def test_annotations_lie_in_any_official_place(open_task, tmp_path, name):
    write(tmp_path, LINE, name=name)
    assert len(open_task("nlvr2", tmp_path).load("dev")) == 1


def test_photographs_may_lie_as_in_the_released_archives(open_task, tmp_path):
    write(tmp_path, LINE)
    (tmp_path / "dev").mkdir()
    (example,) = open_task("nlvr2", tmp_path).load("dev")
    assert example.query.images[0].path == tmp_path / "dev/dev-850-3-img0.png"


@pytest.mark.parametrize("directory", [42, "42"])
def test_train_photographs_lie_in_directories(open_task, tmp_path, directory):
    write(tmp_path, {**LINE, "identifier": "train-1-0-0", "directory": directory}, name="data/train.json")
    (example,) = open_task("nlvr2", tmp_path).load("train")
    assert example.query.images[0].path == tmp_path / "images/train/42/train-1-0-img0.png"


@pytest.mark.parametrize("directory", ["../..", "..", "/etc", "a/b", "a\\b", "", None, 1.5])
def test_directories_cannot_leave_the_root(open_task, tmp_path, directory):
    write(tmp_path, {**LINE, "directory": directory}, name="data/train.json")
    with pytest.raises(DataError, match=r"train\.json, line 1: 'directory' is .*the name of one folder"):
        open_task("nlvr2", tmp_path).load("train")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"identifier": "dev-1', r"dev\.json, line 2: not JSON"),
        ({**LINE, "label": "maybe"}, r"dev\.json, line 2: 'label' is 'maybe' where \"False\" or \"True\""),
        ({**LINE, "label": True}, r"dev\.json, line 2: 'label' is True"),
        ({key: value for key, value in LINE.items() if key != "label"}, r"line 2: 'label' is missing"),
        ({**LINE, "sentence": 3}, r"line 2: 'sentence' is 3 where a string"),
        ({**LINE, "identifier": "../../x-1-0-0"}, r"line 2: 'identifier' is '\.\./\.\./x-1-0-0'"),
        ({**LINE, "identifier": "dev-1-0"}, r"line 2: 'identifier' is 'dev-1-0'"),
        (LINE, "ids twice: dev-850-3-1"),
    ],
)
def test_faults_are_named(open_task, tmp_path, second, message):
    write(tmp_path, LINE, second)
    with pytest.raises(DataError, match=message):
        open_task("nlvr2", tmp_path).load("dev")


def test_an_empty_split_is_an_error(open_task, tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"split 'dev' of nlvr2 .* is empty"):
        open_task("nlvr2", tmp_path).load("dev")


def test_a_missing_file_names_where_it_belongs(open_task, tmp_path):
    with pytest.raises(DataError, match=r"data/test2\.json or nlvr2/data/test2\.json or test2\.json"):
        open_task("nlvr2", tmp_path).load("test-u")


@pytest.mark.parametrize("name", ["nlvr2", "nlvr"])
def test_card_and_adapter_agree(open_task, name):
    task = open_task(name, Path())
    assert task.card.name == name
    assert task.card.labels == importlib.import_module(f"vlbench._tasks.{name}.adapter").LABELS
    assert task.card.metrics == {metric: f"vlbench.metrics.accuracy:{metric}" for metric in task.metrics}
    assert task.card.select_on != task.card.report_split
