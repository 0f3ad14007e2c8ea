"""Predictions on disk as they come: fixed ranges of batches, each a file of its own, whoever made it."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from vlbench.core.results import Prediction, Status
from vlbench.data.cache.folder import atomic_write

SHARDS = 512
"""At most so many files: a killed process loses less than that part of the work."""

_SCHEMA = pa.schema(
    [
        ("example_id", pa.string()), ("answer", pa.string()), ("labels", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())), ("status", pa.string()), ("error", pa.string()), ("text", pa.string()),
    ]
)  # fmt: skip


def cut(blocks: int) -> list[range]:
    """The ranges of so many batches that make a shard each; the number of processes has no part in it."""
    size = max(1, -(-blocks // SHARDS))
    return [range(start, min(start + size, blocks)) for start in range(0, blocks, size)]


def state_sha256(module: nn.Module) -> str:
    """Of all its weights and buffers with their names."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@dataclass(frozen=True)
class Shards:
    """The shards in a folder. key: names the weights that answer, and on what; shards of others are as good as none."""

    folder: Path
    key: str

    def write(self, blocks: range, predictions: Sequence[Prediction]) -> None:
        """Keep the predictions of these batches, to the last bit.

        Raises:
            DataError: they cannot be written; nothing half-written is left.
        """
        columns = {
            "example_id": [one.example_id for one in predictions],
            "answer": [one.answer for one in predictions],
            "labels": [list(one.scores) for one in predictions],
            "scores": [list(one.scores.values()) for one in predictions],
            "status": [one.status for one in predictions],
            "error": [one.error for one in predictions],
            "text": [one.text for one in predictions],
        }
        table = pa.table(columns, schema=_SCHEMA.with_metadata({"key": self.key}))
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        atomic_write(self._path(blocks), buffer.getvalue())

    def read(self, blocks: range, ids: Sequence[str]) -> list[Prediction] | None:
        """The predictions of these batches, which are about the examples of these ids; None where there are none.

        A damaged shard, or one of other weights or examples, is none.
        """
        try:
            content = io.BytesIO(self._path(blocks).read_bytes())
            table = pq.read_table(content, page_checksum_verification=True)
        except (OSError, pa.ArrowException):
            return None
        if not table.schema.equals(_SCHEMA) or (table.schema.metadata or {}).get(b"key") != self.key.encode():
            return None
        predictions = [
            Prediction(name, answer, dict(zip(labels, scores, strict=True)), cast(Status, status), error, text)
            for name, answer, labels, scores, status, error, text in zip(
                *(column.to_pylist() for column in table.columns), strict=True
            )
        ]
        return predictions if [one.example_id for one in predictions] == list(ids) else None

    def clear(self) -> None:
        """Remove them, when what they say is kept elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, blocks: range) -> Path:
        return self.folder / f"batches-{blocks.start:06d}-{blocks.stop - 1:06d}.parquet"
