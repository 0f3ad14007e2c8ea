"""Captions in Karpathy's and in COCO's files: order, the first five, folds, and every fault by name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench.core.cards import SplitCard
from vlbench.core.errors import DataError
from vlbench.core.examples import Caption, Example
from vlbench.core.gallery import galleries
from vlbench.core.task import SplitFiles
from vlbench.data.splits import karpathy
from vlbench.data.splits.karpathy import retrieval_examples

Entry = dict[str, Any]


def entry(number: int, split: str, captions: int = 5, **others: object) -> Entry:
    sentences = [{"raw": f" caption {n} of {number} .\n", "sentid": 10 * number + n} for n in range(captions)]
    return {"filename": f"{number}.jpg", "split": split, "sentences": sentences, **others}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., list[Example[Caption]]]:
    def loaded(content: object, split: str = "test", kind: str = "karpathy") -> list[Example[Caption]]:
        written = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / "file.json").write_bytes(written)
        files = {kind: ("file.json",), "images": ("photos", "images"), "val2014": ("val2014",)}
        return list(retrieval_examples(SplitFiles(split, tmp_path, SplitCard(files=files))))

    return loaded


def test_five_captions_in_order_without_space_around(load: Callable[..., list[Example[Caption]]], tmp_path) -> None:
    (tmp_path / "images").mkdir()
    found = load({"images": [entry(1, "train"), entry(2, "test", 7), entry(3, "test")]})
    assert [example.id for example in found] == ["20", "21", "22", "23", "24", "30", "31", "32", "33", "34"]
    assert found[0].query.text == "caption 0 of 2 ."
    assert found[0].query.images[0].path == tmp_path / "images" / "2.jpg"
    assert (found[0].reference, found[0].group) == (Caption("2"), "2")


def test_equal_captions_stay(load: Callable[..., list[Example[Caption]]]) -> None:
    same = entry(1, "test")
    for sentence in same["sentences"]:
        sentence["raw"] = "A dog ."
    assert [example.query.text for example in load({"images": [same]})] == ["A dog ."] * 5


def test_restval_trains(load: Callable[..., list[Example[Caption]]], tmp_path: Path) -> None:
    content = {"images": [entry(1, "restval", filepath="val2014"), entry(2, "train"), entry(3, "val")]}
    found = load(content, "train")
    assert [example.group for example in found[::5]] == ["1", "2"]
    assert found[0].query.images[0].path == tmp_path / "val2014" / "1.jpg"


def test_folds_are_runs_of_a_thousand(load: Callable[..., list[Example[Caption]]], monkeypatch) -> None:
    monkeypatch.setattr(karpathy, "FOLD", 2)
    found = load({"images": [entry(number, "test") for number in range(5)]}, "test_1k")
    assert [(gallery.fold, len(gallery.images)) for gallery in galleries(found)] == [("1", 2), ("2", 2), ("3", 1)]
    assert {example.reference.fold for example in load({"images": [entry(0, "test")]})} == {""}


FAULTS: list[tuple[object, str]] = [
    ([], r"file\.json: .* where a JSON object"),
    ({"images": {}}, "'images' is .* where a JSON list"),
    ({"images": ["a"]}, "image 1: 'a' is found where a JSON object"),
    ({"images": [entry(1, "tset")]}, "image 1: 'split' is 'tset'"),
    ({"images": [entry(1, "test"), {**entry(2, "test"), "filename": 7}]}, "image 2: 'filename' is 7"),
    ({"images": [entry(1, "test", 4)]}, r"image 1: 1\.jpg has 4 captions where 5 are expected"),
    (
        {"images": [entry(1, "test", 1)]},
        r"1\.jpg has 1 caption where 5 are expected, as in the official files",
    ),
    ({"images": [entry(1, "test", 0)]}, r"1\.jpg has 0 captions where 5 are expected"),
    (
        {"images": [entry(1, "test"), {**entry(1, "test"), "filename": "1.png"}]},
        r"image 2: the images 1\.jpg and 1\.png differ in their endings only, .*: rename one of the two",
    ),
    ({"images": [{**entry(1, "test"), "sentences": [{"raw": "a", "sentid": "x"}] * 5}]}, "'sentid' is 'x'"),
    ({"images": [{**entry(1, "test"), "sentences": [{"raw": 1, "sentid": 1}] * 5}]}, "'raw' is 1"),
    ({"images": [entry(1, "test", filepath="train2014")]}, r"train2014/1\.jpg is in none of the folders"),
    ({"images": [{**entry(1, "test"), "filename": "../1.jpg"}]}, "image 1: the image images/../1.jpg is in none"),
    ({"images": [{**entry(1, "test"), "filename": ".."}]}, r"image 1: .* is in none of the folders images, val2014:"),
    ({"images": [entry(1, "test", filepath="karpathy")]}, "is in none of the folders images, val2014:"),
    ({"images": [entry(1, "test"), entry(1, "test")]}, r"image 2: the image 1\.jpg occurs twice"),
    (b"{", r"file\.json: not JSON"),
    (gzip.compress(b"{}", mtime=0), r"file\.json is compressed by gzip"),
]


@pytest.mark.parametrize(("content", "fault"), FAULTS)
def test_faults_are_named(load: Callable[..., list[Example[Caption]]], content: object, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        load(content)


@pytest.mark.parametrize("kind", ["karpathy", "captions"])
def test_byte_order_marks_and_line_ends_do_not_count(load: Callable[..., list[Example[Caption]]], kind: str) -> None:
    content = {"images": [entry(1, "test")]} if kind == "karpathy" else COCO
    spread = json.dumps(content, indent=1).replace("\n", "\r\n")
    assert load(spread.encode("utf-8-sig"), kind=kind) == load(content, kind=kind) != []


COCO = {
    "images": [{"id": 7, "file_name": "000000000007.jpg"}, {"id": 3, "file_name": "000000000003.jpg"}, {"id": 4}],
    "annotations": [
        *({"id": 100 + n, "image_id": 3, "caption": f"caption {n} "} for n in range(6)),
        {"id": 99, "image_id": 7, "caption": "one\n"},
    ],
}


def test_cocos_own_file(load: Callable[..., list[Example[Caption]]], capsys: pytest.CaptureFixture[str]) -> None:
    found = load(COCO, "val2017", "captions")
    assert [(example.id, example.group) for example in found] == [
        ("99", "000000000007"),
        *((str(100 + n), "000000000003") for n in range(5)),
    ]
    assert [example.query.text for example in found[:2]] == ["one", "caption 0"]
    assert capsys.readouterr().out == ""


COCO_FAULTS: list[tuple[object, str]] = [
    ({"images": []}, "'annotations' is missing where a JSON list"),
    ({"annotations": [], "images": 1}, "'images' is 1 where a JSON list"),
    ({"images": [{"file_name": "a"}], "annotations": []}, r"not a file of COCO captions \(KeyError\('id'\)\)"),
    ({"images": [7], "annotations": []}, r"not a file of COCO captions \(TypeError"),
    ({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1}]}, "not a file of COCO captions"),
    ({"images": [{"id": 1}], "annotations": [{"image_id": 1, "id": 2, "caption": "a"}]}, "image 1: 'file_name'"),
    ({"images": [{"id": 1}], "annotations": [{"image_id": 1, "id": 2, "caption": None}]}, "image 1: 'caption' is None"),
    ({"images": [{"id": 1}], "annotations": [{"image_id": 1, "id": "x", "caption": "a"}]}, "image 1: 'id' is 'x'"),
    ({"images": [{"id": 1}, {"id": 1}], "annotations": []}, "image ids twice"),
    ({"images": [], "annotations": [{"image_id": 1, "id": 2, "caption": "a"}]}, "images that it does not list"),
    (gzip.compress(b"{}", mtime=0), "is compressed by gzip"),
]


@pytest.mark.parametrize(("content", "fault"), COCO_FAULTS)
def test_faults_of_cocos_own_file(load: Callable[..., list[Example[Caption]]], content: object, fault: str) -> None:
    with pytest.raises(DataError, match=rf"file\.json.*{fault}"):
        load(content, "val2017", "captions")
