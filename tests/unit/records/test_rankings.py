"""Rankings on disk: what a run writes comes back, and what others hand in is checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from vlbench.core.errors import DataError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.gallery import galleries
from vlbench.core.results import Ranking
from vlbench.metrics.ranks import from_matrix
from vlbench.records.rankings import read_rankings, read_rankings_of, write_ranks


def split(fold: str = "") -> list[Example[Caption]]:
    return [
        Example(
            f"{fold}{image}{n}",
            Query((ImageRef(Path(f"{fold}{image}"), f"{fold}{image}"),), f"text {n}"),
            Caption(f"{fold}{image}", fold),
            f"{fold}{image}",
        )
        for image in "abc"
        for n in range(2)
    ]


EXAMPLES = split()
SCORES = np.random.default_rng(1).integers(0, 5, (3, 6)).astype(np.float32)


def expected(scores: np.ndarray = SCORES) -> list[Ranking]:
    (gallery,) = galleries(EXAMPLES)
    return from_matrix(scores, gallery)


def test_a_runs_ranks_come_back(tmp_path: Path) -> None:
    write_ranks(tmp_path / "ranks.parquet", expected())
    assert read_rankings(tmp_path / "ranks.parquet", EXAMPLES) == expected()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_a_matrix_of_scores(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "scores.npy", SCORES.astype(dtype))
    assert read_rankings(tmp_path / "scores.npy", EXAMPLES) == expected()


def test_one_tensor_of_scores(tmp_path: Path) -> None:
    save_file({"scores": SCORES}, tmp_path / "scores.safetensors")
    assert read_rankings(tmp_path / "scores.safetensors", EXAMPLES) == expected()
    save_file({"scores": SCORES, "more": SCORES}, tmp_path / "scores.safetensors")
    with pytest.raises(DataError, match="holds 2 tensors where one"):
        read_rankings(tmp_path / "scores.safetensors", EXAMPLES)


def test_a_matrix_over_folds_is_cut(tmp_path: Path) -> None:
    both = split("1") + split("2")
    whole = np.full((6, 12), 99.0, np.float32)
    whole[:3, :6], whole[3:, 6:] = SCORES, SCORES.T.reshape(3, 6)
    np.save(tmp_path / "scores.npy", whole)
    found = read_rankings(tmp_path / "scores.npy", both)
    first, second = galleries(both)
    assert found == from_matrix(whole[:3, :6], first) + from_matrix(whole[3:, 6:], second)


def test_lists_of_the_best(tmp_path: Path) -> None:
    lists = {
        "i2t": {"a": ["b0", "a1", "a0"], "b": ["b0"], "c": ["a0"]},
        "t2i": {f"{image}{n}": ["c", "b", "a"] for image in "abc" for n in range(2)},
    }
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    found = {(item.direction, item.query_id): item for item in read_rankings(tmp_path / "lists.json", EXAMPLES)}
    places = {query: found["i2t", query].rank_high for query in "abc"}
    assert places == {"a": 1, "b": 0, "c": 1}
    assert found["i2t", "c"].depth == 1 and found["t2i", "a0"].depth is None
    assert [found["t2i", f"{image}0"].rank_low for image in "abc"] == [2, 1, 0]


def test_lists_over_folds_go_to_their_own(tmp_path: Path) -> None:
    both = split("1") + split("2")
    lists = {"t2i": {example.id: [example.reference.image] for example in both}}
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    assert [item.rank_high for item in read_rankings(tmp_path / "lists.json", both)] == [0] * 12


FAULTS = [
    ("scores.npy", np.zeros((3, 5), np.float32), "3 images by 5 texts where 3 by 6"),
    ("scores.npy", np.zeros(6, np.float32), r"float32 of shape \(6,\): expected numbers, a row"),
    ("scores.npy", np.full((3, 6), "a"), "expected numbers"),
    ("scores.npy", np.zeros((3, 6), np.complex64), "complex64"),
    ("scores.npy", np.full((3, 6), np.nan, np.float32), "not a number"),
    ("scores.npy", b"\x93NUMPY", "not a readable .npy"),
    ("scores.safetensors", b"{}", "does not load as safetensors"),
    ("scores.parquet", b"PAR1", "not a run's ranks.parquet"),
    ("scores.txt", b"", "suffix '.txt'"),
    ("lists.json", b"[]", "JSON object"),
    ("lists.json", b'{"i2t": {}, "both": {}}', "keys i2t, both: expected i2t, t2i or both"),
    ("lists.json", b'{"i2t": {"a": "b0"}}', "i2t of 'a'"),
    ("lists.json", b'{"i2t": {"z": ["b0"]}}', "'z'"),
    ("lists.json", b'{"i2t": {"a": ["z9"]}}', "z9"),
    ("lists.json", b'{"i2t": {"a": ["b0", "b0"]}}', "b0 more than once"),
]


@pytest.mark.parametrize(("name", "content", "fault"), FAULTS)
def test_faults_are_named(tmp_path: Path, name: str, content: bytes | np.ndarray, fault: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(DataError, match=fault):
        read_rankings(path, EXAMPLES)


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("direction", "x2y", "'x2y'"),
        ("rank_low", None, "expected a ranking"),
        ("rank_low", -3, "ranks between -3"),
        ("rank_high", -1, "and -1"),
        ("positives", 0, "with 0 right answers"),
        ("query_id", None, "None"),
        ("top_ids", ["a"], "expected 0 or more"),
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path: Path, column: str, value: object, fault: str) -> None:
    write_ranks(tmp_path / "ranks.parquet", expected())
    frame = pd.read_parquet(tmp_path / "ranks.parquet")
    frame[column] = frame[column].astype(object)
    frame.at[1, column] = value
    frame.to_parquet(tmp_path / "ranks.parquet")
    with pytest.raises(DataError, match=rf"row 2: .*{fault}"):
        read_rankings(tmp_path / "ranks.parquet", EXAMPLES)


def test_a_query_given_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "lists.json").write_text('{"i2t": {"a": ["b0"], "b": ["b0"], "a": ["a0"]}}')
    with pytest.raises(DataError, match="'a' comes twice in one object"):
        read_rankings(tmp_path / "lists.json", EXAMPLES)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    for suffix in ("npy", "safetensors", "parquet", "json"):
        with pytest.raises(DataError, match=rf"absent\.{suffix}"):
            read_rankings(tmp_path / f"absent.{suffix}", EXAMPLES)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", np.full((3, 6), None), allow_pickle=True)
    with pytest.raises(DataError, match=r"not a readable \.npy"):
        read_rankings(tmp_path / "scores.npy", EXAMPLES)


def test_lists_of_a_larger_split_are_restricted(tmp_path: Path) -> None:
    """Of a split "test" with all images, the part that holds the image "c" alone is scored."""
    part = [example for example in EXAMPLES if example.reference.image == "c"]
    lists = {"i2t": {"a": ["b0", "a1"], "c": ["a0", "c1", "b0", "c0"]}, "t2i": {"c0": ["a", "c"], "c1": ["b"]}}
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    found, notes = read_rankings_of(tmp_path / "lists.json", part, lambda: EXAMPLES)
    assert [(one.query_id, one.rank_high, one.depth) for one in found] == [
        ("c", 0, None),
        ("c0", 0, None),
        ("c1", 0, 0),
    ]
    assert [note[:22] for note in notes] == [
        "1 i2t lists of a large",
        "1 i2t lists rank a lar",
        "2 t2i lists rank a lar",
    ]
    with pytest.raises(DataError, match="'a'"):
        read_rankings(tmp_path / "lists.json", part)


def test_ranks_of_another_gallery_are_rejected(tmp_path: Path) -> None:
    """Ranks among all images are none among those of a fold, although their queries are the same."""
    write_ranks(tmp_path / "ranks.parquet", expected())
    folds = [replace(one, reference=Caption(one.reference.image, one.reference.image)) for one in EXAMPLES]
    with pytest.raises(DataError, match="counted among other candidates than the 2 of its gallery"):
        read_rankings(tmp_path / "ranks.parquet", folds)
    bare = [replace(one, top=()) for one in expected()]
    write_ranks(tmp_path / "ranks.parquet", bare)
    with pytest.raises(DataError, match="counted among other candidates"):
        read_rankings(tmp_path / "ranks.parquet", folds)
