"""LXMERT's pretraining text: captions and questions apart, faults named, big files read like small ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlbench.core.errors import DataError
from vlbench.core.examples import Caption, is_answered
from vlbench.data.cache import index
from vlbench.data.text.lxmert import AnswerScores, lxmert_task

ENTRIES: list[dict[str, Any]] = [
    {
        "img_id": "COCO_train2014_000000318556",
        "labelf": {"vqa": [{"no": 1}, {"blue": 1, "blue and white": 0.3}]},
        "sentf": {"mscoco": ["A bathroom.", "A clean bathroom"], "vqa": ["Is the sink full?", "What color is it?"]},
    },
    {"img_id": "150494", "labelf": {"gqa": [{}]}, "sentf": {"gqa": ["Is it red?"], "vg": ["grass"]}},
    {"img_id": "2", "sentf": {"vg": ["a dog"]}},
]


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_captions_and_questions(tmp_path: Path) -> None:
    files = [write(tmp_path / "one.json", ENTRIES[:1]), write(tmp_path / "two.json", ENTRIES[1:])]
    task = lxmert_task(files, tmp_path)
    examples = task.load("train")
    assert [(one.id, one.query.text) for one in examples] == [
        ("COCO_train2014_000000318556/mscoco/0", "A bathroom."),
        ("COCO_train2014_000000318556/mscoco/1", "A clean bathroom"),
        ("COCO_train2014_000000318556/vqa/0", "Is the sink full?"),
        ("COCO_train2014_000000318556/vqa/1", "What color is it?"),
        ("150494/gqa/0", "Is it red?"),
        ("150494/vg/0", "grass"),
        ("2/vg/0", "a dog"),
    ]
    caption, question, unlabelled = examples[0], examples[3], examples[4]
    assert caption.reference == Caption("COCO_train2014_000000318556") and not is_answered(caption.reference)
    assert is_answered(question.reference)
    assert question.reference.worths() == {"blue": 1.0, "blue and white": 0.3}
    assert (question.reference.consensus, unlabelled.reference.worths()) == ("blue", {})
    (ref,) = caption.query.images
    assert (ref.key, ref.path) == (
        "COCO_train2014_000000318556",
        tmp_path / "train2014" / "COCO_train2014_000000318556.jpg",
    )
    assert unlabelled.query.images[0].path == tmp_path / "images" / "150494.jpg"


def test_features_lie_below_the_root(tmp_path: Path) -> None:
    for name in ("train2014_obj36.tsv", "vg/vg_gqa_obj36.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    task = lxmert_task([write(tmp_path / "one.json", ENTRIES)], tmp_path)
    assert [path.name for path in task.features()] == ["train2014_obj36.tsv", "vg_gqa_obj36.tsv"]


def test_a_big_file_is_the_same_from_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    file = write(tmp_path / "one.json", ENTRIES)
    plain = list(lxmert_task([file], tmp_path).load("train"))
    monkeypatch.setattr(index, "BIG", 1)
    indexed = lxmert_task([file], tmp_path).load("train")
    assert not isinstance(indexed, list) and list(indexed) == plain
    assert {type(example.reference) for example in indexed} == {Caption, AnswerScores}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"img_id": 5}, "entry 1: .*'img_id' is 5"),
        ({"sentf": ["a"]}, "entry 1: .*'sentf'"),
        ({"sentf": {"vg": "a dog"}}, "entry 1: .*'vg'"),
        ({"sentf": {"vg": [7]}}, "sentence 1 of 'vg' is 7: expected a string"),
        ({"labelf": {"vqa": [{"no": 1}]}}, "'vqa' has 2 sentences and 1 labels"),
        ({"labelf": {"vqa": [{"no": 1}, {"a": 2}]}}, "'a' has score 2: expected a number above 0"),
        ({"labelf": {"vqa": [{"no": 1}, {"a": True}]}}, "'a' has score True"),
    ],
)
def test_faults_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = write(tmp_path / "one.json", [{**ENTRIES[0], **change}])
    with pytest.raises(DataError, match=said) as error:
        lxmert_task([file], tmp_path).load("train")
    assert "one.json" in error.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json .*not there"):
        lxmert_task([tmp_path / "none.json"], tmp_path).load("train")
