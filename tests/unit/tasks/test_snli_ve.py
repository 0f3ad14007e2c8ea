"""SNLI-VE: both spellings of the photograph's key, what is shown, the real records, and faults by line."""

from __future__ import annotations

import gzip
import json

import pytest

from vlbench.core.errors import DataError
from vlbench.core.examples import Label

LINE = {
    "Flickr30K_ID": "555378351",
    "gold_label": "entailment",
    "pairID": "555378351.jpg#2r1e",
    "sentence1": "A man taking a bicycle to a shop.",
    "sentence2": "A man has a bike.",
}
OLDER = {**LINE, "Flikr30kID": "555378351.jpg"}
del OLDER["Flickr30K_ID"]


@pytest.fixture
def load(open_task, tmp_path):
    def loaded(*lines, end="\n", start="", task="snli_ve"):
        text = start + "".join((line if isinstance(line, str) else json.dumps(line)) + end for line in lines)
        (tmp_path / "snli_ve_dev.jsonl").write_bytes(text.encode())
        return open_task(task, tmp_path).load("dev")

    return loaded


@pytest.mark.parametrize("line", [LINE, OLDER])
def test_both_spellings(load, line, tmp_path):
    (example,) = load(line)
    assert example.id == "555378351.jpg#2r1e" and example.group == "555378351"
    assert example.query.text == "A man has a bike."
    assert example.query.images[0].path == tmp_path / "flickr30k_images" / "555378351.jpg"
    assert example.query.images[0].key == "555378351"
    assert example.reference == Label("entailment") and example.tags == {"gold_label": "entailment"}


def test_the_premise_is_not_shown(load):
    without = {key: value for key, value in LINE.items() if key != "sentence1"}
    assert load(LINE) == load({**LINE, "sentence1": "Something else."}) == load(without)


def test_the_premise_is_shown_by_the_other_protocol(load):
    (example,) = load(LINE, task="snli_ve_premise")
    (alone,) = load(LINE)
    assert example.query.text == "A man has a bike. | A man taking a bicycle to a shop."
    assert (example.id, example.reference, example.group, example.tags) == (
        alone.id, alone.reference, alone.group, alone.tags,
    )  # fmt: skip
    with pytest.raises(DataError, match="line 1: 'sentence1' is missing"):
        load({key: value for key, value in LINE.items() if key != "sentence1"}, task="snli_ve_premise")


def test_the_other_protocol_finds_the_same_data(vlbench, tmp_path):
    folder = tmp_path / "snli_ve"
    folder.mkdir()
    (folder / "snli_ve_dev.jsonl").write_text(json.dumps(LINE))
    reports = [
        json.loads(vlbench("data", "check", "--task", task, "--data-root", tmp_path, "--split", "dev", "--json").out)
        for task in ("snli_ve", "snli_ve_premise")
    ]
    assert reports[0]["splits"] == reports[1]["splits"]


def test_a_kind_is_a_slice(load):
    (example,) = load({**LINE, "kind": "count"})
    assert example.tags == {"gold_label": "entailment", "kind": "count"}


def test_byte_order_marks_and_line_ends_do_not_count(load):
    assert load(LINE) == load(LINE, end="\r\n", start="\ufeff")


def test_photographs_lie_in_a_shared_folder_too(tmp_path):
    from vlbench.catalog import load_task

    (tmp_path / "flickr30k" / "flickr30k_images").mkdir(parents=True)
    (tmp_path / "snli_ve").mkdir()
    (tmp_path / "snli_ve" / "snli_ve_dev.jsonl").write_text(json.dumps(OLDER))
    task = load_task("snli_ve", tmp_path / "snli_ve", "real", allow_partial=True, data_root=tmp_path)
    (example,) = task.load("dev")
    assert example.query.images[0].path == tmp_path / "flickr30k" / "flickr30k_images" / "555378351.jpg"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"gold_label": "-"}, "line 2: 'gold_label' is '-' where \"contradiction\" or"),
        ({"gold_label": 2}, "line 2: 'gold_label' is 2"),
        ({"sentence2": None}, "line 2: 'sentence2' is None"),
        ({"pairID": 7}, "line 2: 'pairID' is 7"),
        ({"Flickr30K_ID": "../x"}, "line 2: 'Flickr30K_ID' is '../x'"),
        ({"Flickr30K_ID": None}, "line 2: 'Flickr30K_ID' is None"),
        ({"kind": ["count"]}, r"line 2: 'kind' is \['count'\]"),
        ({}, "ids twice: 555378351"),
    ],
)
def test_faults_are_named(load, change, fault):
    with pytest.raises(DataError, match=fault):
        load(LINE, {**LINE, **change})


def test_a_line_without_a_photograph_is_named(load):
    with pytest.raises(DataError, match="line 1: 'Flickr30K_ID' is missing"):
        load({key: value for key, value in LINE.items() if key != "Flickr30K_ID"})


def test_a_compressed_file_is_refused(open_task, tmp_path):
    (tmp_path / "snli_ve_dev.jsonl").write_bytes(gzip.compress(json.dumps(LINE).encode(), mtime=0))
    with pytest.raises(DataError, match=r"snli_ve_dev\.jsonl"):
        open_task("snli_ve", tmp_path).load("dev")


def test_another_number_of_examples_is_a_fault(vlbench, tmp_path):
    (tmp_path / "snli_ve_dev.jsonl").write_text(json.dumps(LINE))
    done = vlbench("data", "check", "--task", "snli_ve", "--data-root", tmp_path, "--split", "dev")
    assert done.code == 5 and "1 examples where 17,858 are expected" in done.out


def test_the_real_records(open_task, shared_data):
    task = open_task("snli_ve", shared_data / "snli_ve_sample")
    examples = task.load("dev")
    assert [(example.id, example.group) for example in examples[:2]] == [
        ("555378351.jpg#2r1e", "555378351"),
        ("3253523210.jpg#2r1n", "3253523210"),
    ]
    assert [example.reference.value for example in examples] == ["entailment", "neutral", *["entailment"] * 3]
    assert examples[0].query.text == "A man walking with his son's bike."
    assert all(example.query.images[0].path.is_file() for example in examples)
    assert task.notes == ["split 'dev' of snli_ve holds 5 examples where 17,858 are expected"]
