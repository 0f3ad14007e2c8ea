from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.results import Prediction
from vlbench.records import samples
from vlbench.records.samples import SampleRow, read_samples, sample_rows, write_samples

COLUMNS = [
    "example_id", "split", "group", "text", "image_ids", "reference", "prediction", "written", "confidence", "score",
    "status", "error", "labels", "label_scores",
]  # fmt: skip
WRITER = """
import os, resource, signal, sys
from pathlib import Path
from vlbench.core.errors import VlbenchError
from vlbench.records.samples import SampleRow, write_samples
rows = [SampleRow(str(n), "s", "g", os.urandom(8).hex(), (), "{}", "a", None, None, "ok", "") for n in range(5000)]
if sys.argv[2] == "kill":
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_samples(Path(sys.argv[1]), rows)
except VlbenchError as error:
    print(int(error.exit_code), error)
"""


def example(name: str, **tags: str) -> Example[Label]:
    images = tuple(ImageRef(Path(f"{name}-img{n}.png"), f"{name}-img{n}") for n in (0, 1))
    return Example(name, Query(images, f"text of {name}\nwith ünïcode | and \t tabs"), Label("True"), f"g-{name}", tags)


@pytest.fixture
def rows() -> list[SampleRow]:
    examples = [example("a", kind="count"), example("b", kind="spatial", length="5"), example("c")]
    predictions = [
        Prediction("c", "", status="error", error="boom"),
        Prediction("b", "False", {"True": 0.25, "False": 0.75}),
        Prediction("a", "True", {"True": 0.9, "False": 0.1}),
    ]
    return list(sample_rows(examples, predictions, {"a": 1.0, "b": 0.0}, "dev"))


def test_rows_follow_the_examples(rows: list[SampleRow]) -> None:
    assert [row.example_id for row in rows] == ["a", "b", "c"]
    assert [(row.prediction, row.confidence, row.score, row.status) for row in rows] == [
        ("True", 0.9, 1.0, "ok"),
        ("False", 0.75, 0.0, "ok"),
        ("", None, None, "error"),
    ]
    assert rows[1].labels == ("True", "False") and rows[1].label_scores == (0.25, 0.75)
    assert rows[0].image_ids == ("a-img0", "a-img1") and rows[0].reference == '{"value": "True"}'
    assert rows[2].error == "boom" and rows[2].control == ""


def test_a_missing_prediction_is_named() -> None:
    with pytest.raises(CoverageError, match=r"1 of 2 examples have no prediction \(b\)"):
        sample_rows([example("a"), example("b")], [Prediction("a", "True")], {}, "dev")


def test_top_labels_are_cut() -> None:
    scores = {f"answer {n}": 1 / (n + 2) for n in range(500)}
    (row,) = sample_rows([example("a")], [Prediction("a", "answer 400", scores)], {}, "dev")
    assert row.labels == tuple(list(scores)[:10]) and row.confidence == scores["answer 400"]


@dataclass(frozen=True)
class Rich:
    answers: tuple[str, ...]
    entailed: frozenset[str]
    label: Label


def test_any_frozen_reference_becomes_json() -> None:
    reference = Rich(("ja", "né"), frozenset("zyxwv"), Label("yes"))
    rich = Example("a", Query((), ""), reference, "g")
    (row,) = sample_rows([rich], [Prediction("a", "ja")], {}, "dev", control="blind")
    assert row.reference == (
        '{"answers": ["ja", "né"], "entailed": ["v", "w", "x", "y", "z"], "label": {"value": "yes"}}'
    )
    assert row.control == "blind"


def test_round_trip(tmp_path: Path, rows: list[SampleRow]) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, [*rows, *(replace(row, control="blind") for row in rows)])
    frame = read_samples(path)
    assert list(frame.columns) == [*COLUMNS, "tag_kind", "tag_length", "control"]
    assert list(frame["control"]) == [""] * 3 + ["blind"] * 3
    for row, (_, read) in zip(rows, frame.iterrows(), strict=False):
        assert [read[name] for name in ("example_id", "split", "group", "text", "reference", "prediction")] == [
            row.example_id, row.split, row.group, row.text, row.reference, row.prediction,
        ]  # fmt: skip
        assert tuple(read["image_ids"]) == row.image_ids
        assert tuple(read["labels"]) == row.labels and tuple(read["label_scores"]) == row.label_scores
    assert frame["confidence"].isna().tolist() == [False, False, True] * 2
    assert frame["tag_length"].isna().tolist() == [True, False, True] * 2
    assert list(tmp_path.iterdir()) == [path]


def test_no_rows_keep_the_columns(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples.parquet", [])
    frame = read_samples(tmp_path / "samples.parquet")
    assert list(frame.columns) == [*COLUMNS, "control"] and len(frame) == 0


def test_the_same_rows_are_the_same_bytes(tmp_path: Path, rows: list[SampleRow]) -> None:
    write_samples(tmp_path / "a", rows)
    write_samples(tmp_path / "b", rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_blocks_of_rows_are_one_table(tmp_path: Path, rows: list[SampleRow], monkeypatch: pytest.MonkeyPatch) -> None:
    write_samples(tmp_path / "once", rows)
    monkeypatch.setattr(samples, "_BLOCK", 1)
    write_samples(tmp_path / "blocks", iter(rows))
    assert pq.read_table(tmp_path / "blocks").equals(pq.read_table(tmp_path / "once"))


def test_corrupt_files_name_file_and_remedy(tmp_path: Path, rows: list[SampleRow]) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, rows)
    whole = path.read_bytes()
    spoilt = bytes(byte ^ 0xFF for byte in whole)
    for content in [b"", b"junk", spoilt, *(whole[:end] for end in range(0, len(whole), 211))]:
        path.write_bytes(content)
        with pytest.raises(DataError) as raised:
            read_samples(path)
        assert str(path) in raised.value.message and "\n" not in raised.value.message
        assert raised.value.message.endswith("delete the folder or rerun with --no-resume")


def test_a_flipped_byte_is_an_error_or_harmless(tmp_path: Path, rows: list[SampleRow]) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, rows)
    whole, truth = path.read_bytes(), read_samples(path).to_json()
    refused = 0
    for place in range(4, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            frame = read_samples(path)
        except DataError:
            refused += 1
        else:
            assert frame.to_json() == truth, place
    assert refused > 10


def test_a_table_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    pq.write_table(pa.table({"example_id": ["a"]}), path)
    with pytest.raises(DataError, match="columns split, group, text"):
        read_samples(path)


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"samples\.parquet does not exist"):
        read_samples(tmp_path / "samples.parquet")


@pytest.mark.parametrize("end", ["kill", "full"])
def test_a_writer_that_ends_early_keeps_the_old_file(tmp_path: Path, rows: list[SampleRow], end: str) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, rows)
    done = subprocess.run([sys.executable, "-c", WRITER, str(path), end], capture_output=True, text=True)
    assert done.returncode == -9 if end == "kill" else done.stdout.startswith("5 "), done
    assert len(read_samples(path)) == len(rows)


@pytest.mark.parametrize("name", ["text", "prediction", "image_ids", "labels", "control"])
def test_rows_that_lack_a_value_or_have_it_twice(name: str, rows: list[SampleRow], tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, rows)
    whole = pq.read_table(path)
    place = whole.column_names.index(name)
    field = whole.schema.field(name)
    values = [None, *whole.column(name).to_pylist()[1:]]
    pq.write_table(whole.set_column(place, field, pa.array(values, field.type)), path)
    with pytest.raises(DataError, match=f"columns {name} lack values"):
        read_samples(path)
    pq.write_table(whole.append_column(field, whole.column(place)), path)
    with pytest.raises(DataError, match="is corrupt"):
        read_samples(path)
