from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlbench.core.errors import DataError
from vlbench.records.attention import Attended, Attention, read_attention, write_attention


def of_image(name: str, place: int, tokens: int) -> Attended:
    draw = np.random.default_rng(tokens)
    return Attended(
        name, place, draw.dirichlet(np.ones(tokens)).astype(np.float32), draw.random((tokens, 4)).astype(np.float32)
    )


@pytest.fixture
def attention() -> Attention:
    rows = {"one": [of_image("one", 0, 3), of_image("one", 1, 5)], "two": [of_image("two", 0, 1)]}
    return Attention("run-1", "hash", "", rows)


def test_what_is_written_is_read(attention: Attention, tmp_path: Path) -> None:
    write_attention(tmp_path / "attention.parquet", attention)
    read = read_attention(tmp_path / "attention.parquet", "run-1")
    assert read is not None
    assert (read.run, read.weights_sha256, read.absent) == ("run-1", "hash", "")
    assert list(read.rows) == ["one", "two"]
    for name, rows in attention.rows.items():
        for given, back in zip(rows, read.rows[name], strict=True):
            assert (back.example_id, back.place) == (given.example_id, given.place)
            np.testing.assert_array_equal(back.weights, given.weights)
            np.testing.assert_array_equal(back.boxes, given.boxes)
    assert [path.name for path in tmp_path.iterdir()] == ["attention.parquet"]


def test_a_model_that_does_not_tell_leaves_the_reason(tmp_path: Path) -> None:
    write_attention(tmp_path / "a", Attention("run", "", "brivl does not tell"))
    read = read_attention(tmp_path / "a", "run")
    assert read is not None and read.absent == "brivl does not tell" and not read.rows


def test_another_runs_file_and_no_file_are_none(attention: Attention, tmp_path: Path) -> None:
    write_attention(tmp_path / "a", attention)
    assert read_attention(tmp_path / "a", "run-2") is None
    assert read_attention(tmp_path / "b", "run-1") is None


def test_a_damaged_file_is_named(attention: Attention, tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_attention(path, attention)
    whole = path.read_bytes()
    for damaged in (b"", b"no parquet", whole[: len(whole) // 2], whole[:100] + bytes(40) + whole[140:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"corrupt.*--attention"):
            read_attention(path, "run-1")


@pytest.mark.parametrize(("weights", "box"), [([1.0, 1.0], 0.0), ([-1.0], 0.0), ([np.nan], 0.0), ([1.0], np.nan)])
def test_weights_that_fit_no_boxes_are_corrupt(weights: list[float], box: float, tmp_path: Path) -> None:
    lame = Attended("one", 0, np.array(weights, np.float32), np.full((1, 4), box, np.float32))
    write_attention(tmp_path / "a", Attention("run", "", "", {"one": [lame]}))
    with pytest.raises(DataError, match="do not fit its boxes"):
        read_attention(tmp_path / "a", "run")
