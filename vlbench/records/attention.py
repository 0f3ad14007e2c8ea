"""`attention.parquet` in a run's folder: what in the pictures the answers attended to, for pages made without torch.

Shapes: R visual tokens of a picture.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError
from vlbench.data.cache.folder import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("example_id", "place", "weights", "boxes")


@dataclass(frozen=True)
class Attended:
    """What of one picture an answer attended to.

    place: of the picture in its question, from 0. weights [R]: 0 or more, with a sum of 1. boxes [R, 4]: left, top,
    right and bottom of each token as shares of the picture's sides.
    """

    example_id: str
    place: int
    weights: NDArray[np.float32]
    boxes: NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """What is known of a run's attention.

    run: the run's fingerprint. weights_sha256: of the weights that answered. absent: why there is none, where the model
    does not tell. rows: by example id, in the order of its pictures.
    """

    run: str
    weights_sha256: str
    absent: str = ""
    rows: Mapping[str, Sequence[Attended]] = field(default_factory=dict)


def write_attention(path: Path, attention: Attention) -> None:
    """Write the file in one step.

    Raises:
        DataError: it cannot be written; an old one stays as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row for of_example in attention.rows.values() for row in of_example]
    columns = {
        "example_id": pa.array([row.example_id for row in rows], pa.string()),
        "place": pa.array([row.place for row in rows], pa.int32()),
        "weights": pa.array([row.weights for row in rows], pa.list_(pa.float32())),
        "boxes": pa.array([row.boxes.reshape(-1) for row in rows], pa.list_(pa.float32())),
    }
    known = {"run": attention.run, "weights_sha256": attention.weights_sha256, "absent": attention.absent}
    buffer = io.BytesIO()
    table = pa.table(columns).replace_schema_metadata(known)
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    atomic_write(path, buffer.getvalue())


def read_attention(path: Path, run: str) -> Attention | None:
    """What the file of a run's folder says; None where there is none, or one of another run.

    Args:
        path: the file.
        run: the run's fingerprint.

    Raises:
        DataError: it is corrupt.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()), page_checksum_verification=True)
        said = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
        if said["run"] != run:
            return None
        return Attention(run, said["weights_sha256"], said["absent"], _by_example(table))
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path} is corrupt ({str(error).partition(chr(10))[0]}): delete it, or make it again with --attention"
        ) from None


def _by_example(table: pa.Table) -> dict[str, list[Attended]]:
    found: dict[str, list[Attended]] = {}
    for example_id, place, weights, boxes in zip(*(table.column(name).to_pylist() for name in _COLUMNS), strict=True):
        row = Attended(example_id, place, np.array(weights, np.float32), np.array(boxes, np.float32).reshape(-1, 4))
        if len(row.weights) != len(row.boxes) or not np.isfinite(row.boxes).all() or not (row.weights >= 0).all():
            raise ValueError(f"the weights of {example_id!r} do not fit its boxes")
        found.setdefault(example_id, []).append(row)
    return found
