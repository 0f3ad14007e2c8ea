"""`samples.parquet` in a run's folder: one flat row per example, for people and for all reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vlbench.core.errors import CoverageError, DataError, first_five
from vlbench.core.examples import Example, Examples
from vlbench.core.results import Prediction, Status
from vlbench.core.task import ids_of
from vlbench.data.files.foreign import reading
from vlbench.records.folder import corrupt_file
from vlbench.records.parquet import read_table, write_table
from vlbench.records.provenance import without_home

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_STRING, _NUMBER = "string", "double"
_COLUMNS = {
    **dict.fromkeys(("example_id", "split", "group", "text"), _STRING),
    "image_ids": f"list of {_STRING}",
    **dict.fromkeys(("reference", "prediction", "written"), _STRING),
    **dict.fromkeys(("confidence", "score"), _NUMBER),
    **dict.fromkeys(("status", "error"), _STRING),
    "labels": f"list of {_STRING}",
    "label_scores": f"list of {_NUMBER}",
}
"""Column -> type, in order. The tags as `tag_*` and the column `control` follow."""
_REQUIRED = {**_COLUMNS, "control": _STRING}
_TOP = 10
_BLOCK = 4096
"""Rows that are held as objects while a file is written."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One example with its prediction.

    reference: as JSON. written: the generated text, where the prediction was extracted from it. confidence: the
    probability of the prediction, None where the model gives none. score: the main metric of this example in [0, 1],
    None where it has none. labels, label_scores: the best answers with their probabilities, best first. control: the
    control that made the prediction, empty for the run itself.
    """

    example_id: str
    split: str
    group: str
    text: str
    image_ids: tuple[str, ...]
    reference: str
    prediction: str
    confidence: float | None
    score: float | None
    status: Status
    error: str
    labels: tuple[str, ...] = ()
    label_scores: tuple[float, ...] = ()
    written: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    control: str = ""


def sample_rows(
    examples: Examples,
    predictions: Sequence[Prediction],
    per_example: Mapping[str, float],
    split: str,
    control: str = "",
) -> Iterator[SampleRow]:
    """Examples, their predictions and their scores as rows, in the order of the examples; each row is made when it is
    asked for. predictions: one for each example, in any order. per_example: example id -> its main metric, in [0, 1].
    control: the control that made the predictions; empty for the run itself. Raises CoverageError, at once: an example
    has no prediction.
    """
    by_id = {prediction.example_id: prediction for prediction in predictions}
    missing = [name for name in ids_of(examples) if name not in by_id]
    if missing:
        raise CoverageError(
            f"{len(missing)} of {len(examples)} examples have no prediction ({first_five(missing)}): "
            f"rerun with --no-resume"
        )
    return (_row(example, by_id[example.id], per_example.get(example.id), split, control) for example in examples)


def write_samples(path: Path, rows: Iterable[SampleRow]) -> None:
    """Write the rows in one step; tags become columns `tag_*`, null where a row lacks the tag. Raises DataError: the
    file cannot be written (exit 5); an old one stays as it was.
    """
    import pyarrow as pa

    left = iter(rows)
    blocks = [_table([])]  # the columns of a file without rows
    while block := list(islice(left, _BLOCK)):
        blocks.append(_table(block))
    table = pa.concat_tables(blocks, promote_options="default")
    tags = sorted(set(table.column_names) - set(_REQUIRED))
    write_table(path, table.select([*_COLUMNS, *tags, "control"]))


def _table(rows: Sequence[SampleRow]) -> pa.Table:
    """The rows with the columns of their own tags."""
    import pyarrow as pa

    types = {_STRING: pa.string(), _NUMBER: pa.float64()}
    types |= {f"list of {name}": pa.list_(item) for name, item in types.items()}
    columns = {name: pa.array([getattr(row, name) for row in rows], types[kind]) for name, kind in _REQUIRED.items()}
    tags = {tag for row in rows for tag in row.tags}
    columns |= {f"tag_{tag}": pa.array([row.tags.get(tag) for row in rows], pa.string()) for tag in tags}
    return pa.table(columns)


def read_samples(path: Path, controls: bool = True) -> pd.DataFrame:
    """The rows of a `samples.parquet` with the columns of `write_samples`; lists become numpy arrays.

    controls: whether to keep the rows of controls.
    Raises DataError: it does not exist, is corrupt, or has other columns.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: rerun with --no-resume")
    with reading(path, "is corrupt", "delete the folder or rerun with --no-resume"):
        table = read_table(path)
        frame: pd.DataFrame = table.to_pandas(use_threads=False)
    if len(set(table.column_names)) < table.num_columns:
        raise corrupt_file(path, "a column comes twice")
    absent = [name for name in _REQUIRED if name not in frame.columns]
    if absent:
        raise corrupt_file(path, f"columns {', '.join(absent)} are missing")
    changed = [name for name, kind in _REQUIRED.items() if kind != _kind(table.schema.field(name).type)]
    if changed:
        raise corrupt_file(path, f"columns {', '.join(changed)} are of another type")
    empty = [name for name, kind in _REQUIRED.items() if kind != _NUMBER and table.column(name).null_count]
    if empty:
        raise corrupt_file(path, f"columns {', '.join(empty)} lack values")
    return frame if controls else frame[frame["control"] == ""]


def failed_examples(path: Path) -> dict[str, str]:
    """Example id -> why the run could not answer it, of a `samples.parquet`; raises as `read_samples`."""
    rows = read_samples(path, controls=False)
    failed = rows[rows["status"] == "error"]
    return dict(zip(failed["example_id"], failed["error"], strict=True))


def _row(example: Example[object], prediction: Prediction, score: float | None, split: str, control: str) -> SampleRow:
    best = list(prediction.scores.items())[:_TOP]
    return SampleRow(
        example_id=example.id,
        split=split,
        group=example.group,
        text=example.query.text,
        image_ids=tuple(image.key for image in example.query.images),
        reference=_reference_json(example.reference),
        prediction=prediction.answer,
        written=without_home(prediction.text),
        confidence=prediction.scores.get(prediction.answer),
        score=score,
        status=prediction.status,
        error=without_home(prediction.error),
        labels=tuple(label for label, _ in best),
        label_scores=tuple(value for _, value in best),
        tags=example.tags,
        control=control,
    )


def _reference_json(reference: object) -> str:
    if not dataclasses.is_dataclass(reference) or isinstance(reference, type):
        raise TypeError(f"a reference is {reference!r}, and a dataclass is expected")
    return _ENCODER.encode(_fields_of(reference))


def _fields_of(value: object) -> dict[str, object]:
    kind: type = type(value)
    return {name: getattr(value, name) for name in _field_names(kind)}


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _plain(value: object) -> object:
    """Dataclasses as objects, sets as sorted lists, so that the same reference is always the same text."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value):
        return _fields_of(value)
    raise TypeError(f"a reference holds {value!r}, which has no JSON form")


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=_plain)


def _kind(arrow_type: pa.DataType) -> str:
    """The type as in `_COLUMNS`, without the width of offsets and the name of list elements."""
    import pyarrow as pa

    if pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type):
        return f"list of {_kind(arrow_type.value_type)}"
    return str(arrow_type).removeprefix("large_")
