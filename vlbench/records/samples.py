"""`samples.parquet`: one row per example, flat, for people and for everything that needs no model any more."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlbench.core.errors import CoverageError, DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.results import Prediction, Status
from vlbench.data.cache.folder import atomic_write
from vlbench.records.provenance import without_home

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = ("example_id", "split", "group", "text", "reference", "prediction", "written", "status", "error", "control")
_NUMBERS = ("confidence", "score")
_COLUMNS = (
    "example_id", "split", "group", "text", "image_ids", "reference", "prediction", "written", "confidence", "score",
    "status", "error", "labels", "label_scores",
)  # fmt: skip
"""The columns in their order; the tags as `tag_*` and `control` follow."""
_TOP = 10


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One example with its prediction.

    reference: as JSON. written: what the model wrote, where its prediction was taken out of that. confidence:
    probability of the prediction, None where the model gives none. score: the main metric of this
    example in [0, 1], None where it has none. labels, label_scores: the best answers with their probabilities, best
    first. control: empty for the real run.
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
    examples: Sequence[Example[Any]],
    predictions: Sequence[Prediction],
    per_example: Mapping[str, float],
    split: str,
    control: str = "",
) -> list[SampleRow]:
    """Examples, their predictions and their scores as rows, in the order of the examples.

    Args:
        examples: B examples.
        predictions: one for each example, in any order.
        per_example: the main metric, example id -> [0, 1].
        split: the split the examples are from.
        control: the control that made the predictions; empty for the real run.

    Raises:
        CoverageError: an example has no prediction.
    """
    by_id = {prediction.example_id: prediction for prediction in predictions}
    missing = [example.id for example in examples if example.id not in by_id]
    if missing:
        raise CoverageError(
            f"{len(missing)} of {len(examples)} examples have no prediction ({first_five(missing)}): "
            f"rerun with --no-resume"
        )
    return [_row(example, by_id[example.id], per_example.get(example.id), split, control) for example in examples]


def write_samples(path: Path, rows: Sequence[SampleRow]) -> None:
    """Write the rows in one step; tags become columns `tag_*`, null where a row lacks the tag.

    Raises:
        VlbenchError: the file cannot be written (exit 5); an old one stays as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tags = sorted({tag for row in rows for tag in row.tags})
    columns = {name: pa.array([getattr(row, name) for row in rows], _arrow_type(name)) for name in _COLUMNS}
    columns |= {f"tag_{tag}": pa.array([row.tags.get(tag) for row in rows], pa.string()) for tag in tags}
    columns["control"] = pa.array([row.control for row in rows], pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd", write_page_checksum=True)
    atomic_write(path, buffer.getvalue())


def read_samples(path: Path) -> pd.DataFrame:
    """The rows of a `samples.parquet`, columns as `write_samples` made them; lists come as numpy arrays.

    Raises:
        DataError: it is not there, corrupt, or holds other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()), page_checksum_verification=True)
        frame: pd.DataFrame = table.to_pandas()
    except FileNotFoundError:
        raise DataError(f"{path} is not there: rerun with --no-resume") from None
    # ValueError: column names that are no UTF-8.
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _corrupt(path, str(error).partition("\n")[0]) from None
    if len(set(table.column_names)) < table.num_columns:
        raise _corrupt(path, "a column comes twice")
    absent = [name for name in (*_COLUMNS, "control") if name not in frame.columns]
    if absent:
        raise _corrupt(path, f"columns {', '.join(absent)} are missing")
    kinds = {name: _kind(table.schema.field(name).type) for name in (*_COLUMNS, "control")}
    changed = [name for name, kind in kinds.items() if kind != _kind(_arrow_type(name))]
    if changed:
        raise _corrupt(path, f"columns {', '.join(changed)} are of another type")
    empty = [name for name in (*_COLUMNS, "control") if name not in _NUMBERS and table.column(name).null_count]
    if empty:
        raise _corrupt(path, f"columns {', '.join(empty)} lack values")
    return frame


def _row(example: Example[Any], prediction: Prediction, score: float | None, split: str, control: str) -> SampleRow:
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


def _reference_json(reference: Any) -> str:
    return json.dumps(dataclasses.asdict(reference), ensure_ascii=False, sort_keys=True, default=_listed)


def _listed(value: object) -> list[object]:
    """Sets as sorted lists, so that the same reference is always the same text."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a reference holds {value!r}, which has no JSON form")


def _arrow_type(name: str) -> Any:
    import pyarrow as pa

    if name in _NUMBERS:
        return pa.float64()
    if name in _TEXTS:
        return pa.string()
    return pa.list_(pa.float64() if name == "label_scores" else pa.string())


def _kind(arrow_type: Any) -> str:
    """The type as text, whichever width of offsets and name of elements its writer chose."""
    import pyarrow as pa

    if pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type):
        return f"list of {_kind(arrow_type.value_type)}"
    return str(arrow_type).removeprefix("large_")


def _corrupt(path: Path, why: str) -> DataError:
    return DataError(f"{path} is corrupt ({why}): delete the folder or rerun with --no-resume")
