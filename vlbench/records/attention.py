"""`attention.parquet` in a run's folder: the image regions that answers attended to, for reports made without torch.

Shapes: R visual tokens of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlbench.data.files.foreign import reading
from vlbench.records.parquet import read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("example_id", "place", "weights", "boxes")


@dataclass(frozen=True)
class Attended:
    """The attention of one answer over one image. place: the image's place in its question, from 0. weights [R]:
    non-negative, with a sum of 1. boxes [R, 4]: left, top, right and bottom of each token, in [0, 1] as shares of the
    image's width and height.
    """

    example_id: str
    place: int
    weights: NDArray[np.float32]
    boxes: NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """The attention of a run's answers. run: the run's fingerprint. weights_sha256: the hash of the weights that
    answered. absent: the reason why the model gives no attention, else empty. rows: example id -> its images, in their
    order.
    """

    run: str
    weights_sha256: str
    absent: str = ""
    rows: Mapping[str, Sequence[Attended]] = field(default_factory=dict)


def write_attention(path: Path, attention: Attention) -> None:
    """Write the file in one step. Raises DataError: it cannot be written; an old one stays as it was."""
    import pyarrow as pa

    rows = [row for images in attention.rows.values() for row in images]
    columns = {
        "example_id": pa.array([row.example_id for row in rows], pa.string()),
        "place": pa.array([row.place for row in rows], pa.int32()),
        "weights": pa.array([row.weights for row in rows], pa.list_(pa.float32())),
        "boxes": pa.array([row.boxes.reshape(-1) for row in rows], pa.list_(pa.float32())),
    }
    metadata = {"run": attention.run, "weights_sha256": attention.weights_sha256, "absent": attention.absent}
    write_table(path, pa.table(columns).replace_schema_metadata(metadata))


def read_attention(path: Path, run: str) -> Attention | None:
    """The attention in a run's folder; None if there is no file, or if it is of another run. run: the run's
    fingerprint. Raises DataError: it is corrupt.
    """
    if not path.is_file():
        return None
    with reading(path, "is corrupt", "delete it, or write it again with --attention"):
        table = read_table(path)
        metadata = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
        if metadata["run"] != run:
            return None
        return Attention(run, metadata["weights_sha256"], metadata["absent"], _by_example(table))


def _by_example(table: pa.Table) -> dict[str, list[Attended]]:
    by_example: dict[str, list[Attended]] = {}
    for example_id, place, weights, boxes in zip(*(table.column(name).to_pylist() for name in _COLUMNS), strict=True):
        row = Attended(example_id, place, np.array(weights, np.float32), np.array(boxes, np.float32).reshape(-1, 4))
        if len(row.weights) != len(row.boxes) or not np.isfinite(row.boxes).all() or not (row.weights >= 0).all():
            raise ValueError(f"the weights of {example_id!r} do not fit its boxes")
        by_example.setdefault(example_id, []).append(row)
    return by_example
