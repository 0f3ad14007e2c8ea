"""Read predictions from a file: an official CSV or JSON list, JSON lines, or vlbench's own parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq

from vlbench.core.errors import CoverageError, DataError
from vlbench.core.results import Prediction, Status
from vlbench.core.spec import Control
from vlbench.data.files.foreign import reading
from vlbench.data.json.document import as_list, as_object, read_json, whole_number
from vlbench.data.json.lines import GZIP, Fields, read_json_lines, read_lines, text
from vlbench.records.parquet import check_text

ID_KEYS = ("identifier", "id", "example_id", "question_id", "questionId")
ANSWER_KEYS = ("prediction", "answer")
COLUMNS = ("example_id", "prediction", "status", "control")


def read_predictions(path: Path, expected: int | None = None) -> list[Prediction]:
    """Read a file of predictions; the format is detected from the content.

    CSV: `identifier,prediction` per line, no header. JSON lines: objects with an id (`identifier`, `id`, `example_id`,
    `question_id` or `questionId`, a string or an integer) and an answer (`prediction` or `answer`, a string). JSON: a
    list of such objects, or one object of answers by id. Parquet: a run's samples, without the rows of controls.
    expected: the number of examples in the largest split that the file may be for; None: any.
    Raises DataError: the file cannot be read, is empty, or breaks its format, with the line number where there is one.
    Raises CoverageError: a Parquet file has more rows than that; none of them is read.
    """
    start = _start(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PAR1"):
        predictions = _from_parquet(path, expected)
    elif start.startswith(b"{") and _is_document(path):
        predictions = list(_from_answers(path))
    elif start.startswith(b"{"):
        lines = read_json_lines(path, unique_keys=True)
        predictions = [_from_fields(fields, f"{path}, line {number}") for number, fields in lines]
    elif start.startswith((b"[", GZIP)):
        predictions = list(_from_json_list(path))
    else:
        predictions = list(_from_csv(path))
    if not predictions:
        raise DataError(f"{path} holds no predictions: expected one for each example")
    return predictions


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise DataError(f"cannot read predictions from {path} ({error.strerror}): give a readable file") from None


def _from_csv(path: Path) -> Iterator[Prediction]:
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 2:
            raise DataError(f"{path}, line {number}: {line[:60]!r} is not 'identifier,prediction': give just these two")
        yield Prediction(fields[0], fields[1])


def _is_document(path: Path) -> bool:
    """Whether a JSON file goes on after the line of its first brace: one object, not an object per line."""
    _, line = next(read_lines(path))
    return line == "{"


def _from_answers(path: Path) -> Iterator[Prediction]:
    answers = as_object(read_json(path, unique_keys=True), str(path))
    for name in answers:
        yield Prediction(name, text(answers, name, str(path)))


def _from_json_list(path: Path) -> Iterator[Prediction]:
    for number, entry in enumerate(as_list(read_json(path, unique_keys=True), str(path)), start=1):
        where = f"{path}, entry {number}"
        yield _from_fields(as_object(entry, where), where)


def _from_fields(fields: Fields, where: str) -> Prediction:
    id_key = _first(fields, ID_KEYS, where)
    named = isinstance(fields[id_key], str)
    name = text(fields, id_key, where) if named else str(whole_number(fields, id_key, where))
    return Prediction(name, text(fields, _first(fields, ANSWER_KEYS, where), where))


def _first(fields: Fields, keys: Sequence[str], where: str) -> str:
    for key in keys:
        if key in fields:
            return key
    raise DataError(f"{where}: expected one of the keys {', '.join(keys)}, found {', '.join(fields) or 'none'}")


def _from_parquet(path: Path, expected: int | None) -> list[Prediction]:
    with reading(path, "is not a readable parquet file", "run again, or give an intact file"):
        file = pq.ParquetFile(path)
    rows = file.metadata.num_rows
    if expected is not None and rows > expected * (1 + len(get_args(Control))):
        raise CoverageError(
            f"{path} holds {rows:,} rows where {expected:,} examples are expected: give each example's id once"
        )
    with reading(path, "is not a readable parquet file", "run again, or give an intact file"):
        check_text(file, path)
        table = file.read(columns=list(COLUMNS))
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}: expected the samples of a vlbench run")
    columns = (table.column(name).to_pylist() for name in COLUMNS)
    return [
        _from_sample(name, answer, status, f"{path}, row {row}")
        for row, (name, answer, status, control) in enumerate(zip(*columns, strict=True), start=1)
        if not control
    ]


def _from_sample(name: object, answer: object, status: object, where: str) -> Prediction:
    if not isinstance(name, str) or not isinstance(answer, str | None):
        raise DataError(f"{where}: example_id {name!r} with prediction {answer!r}: expected two strings")
    if answer is None and status == "ok":
        raise DataError(f"{where}: the prediction for {name!r} is null with status 'ok': expected a string")
    for known in get_args(Status):
        if status == known:
            return Prediction(name, answer or "", status=known)
    raise DataError(f"{where}: status is {status!r}: expected one of {', '.join(get_args(Status))}")
