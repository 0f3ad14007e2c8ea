"""Predictions on disk as they come: one file per fixed range of batches, whichever process writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import cast

import pyarrow as pa
import torch
from torch import nn

from vlbench.core.errors import is_out_of_memory
from vlbench.core.results import Prediction, Status
from vlbench.records.parquet import read_table, write_table

SHARDS = 512
"""The most files: a killed process loses less than 1 / SHARDS of the work."""
_QUEUED = 2
"""Shards that wait to be written while another one is."""

_SCHEMA = pa.schema(
    [
        ("example_id", pa.string()), ("answer", pa.string()), ("labels", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())), ("status", pa.string()), ("error", pa.string()), ("text", pa.string()),
    ]
)  # fmt: skip


def shard_ranges(blocks: int) -> list[range]:
    """The ranges of so many batches that are one shard each; they do not depend on the number of processes."""
    size = max(1, -(-blocks // SHARDS))
    return [range(start, min(start + size, blocks)) for start in range(0, blocks, size)]


def state_sha256(module: nn.Module) -> str:
    """The hash of all weights and buffers with their names."""
    sha256 = hashlib.sha256()
    for name, value in module.state_dict().items():
        sha256.update(name.encode())
        sha256.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


@dataclass(frozen=True)
class PredictionShards:
    """The predictions in a folder. key: names the weights and the device; shards with another key are ignored."""

    folder: Path
    key: str

    def write(self, blocks: range, predictions: Sequence[Prediction]) -> None:
        """Write the predictions of these batches, to the last bit; a DataError, and no file, if that is impossible."""
        columns = {
            "example_id": [prediction.example_id for prediction in predictions],
            "answer": [prediction.answer for prediction in predictions],
            "labels": [list(prediction.scores) for prediction in predictions],
            "scores": [list(prediction.scores.values()) for prediction in predictions],
            "status": [prediction.status for prediction in predictions],
            "error": [prediction.error for prediction in predictions],
            "text": [prediction.text for prediction in predictions],
        }
        table = pa.table(columns, schema=_SCHEMA.with_metadata({"key": self.key}))
        write_table(self._path(blocks), table)

    def read(self, blocks: range, ids: Sequence[str]) -> list[Prediction] | None:
        """The predictions of these batches for the examples of these ids.

        None if the shard is missing, damaged, or of other weights or examples.
        """
        try:
            table = read_table(self._path(blocks))
        except Exception as error:  # damaged bytes raise any type of error
            if is_out_of_memory(error):
                raise
            return None
        if not table.schema.equals(_SCHEMA) or (table.schema.metadata or {}).get(b"key") != self.key.encode():
            return None
        predictions = [
            Prediction(name, answer, dict(zip(labels, scores, strict=True)), cast(Status, status), error, text)
            for name, answer, labels, scores, status, error, text in zip(
                *(column.to_pylist() for column in table.columns), strict=True
            )
        ]
        return predictions if [prediction.example_id for prediction in predictions] == list(ids) else None

    def _path(self, blocks: range) -> Path:
        return self.folder / f"batches-{blocks.start:06d}-{blocks.stop - 1:06d}.parquet"


class ShardWriter:
    """A context in which a thread writes shards, in the order in which they come, while the caller computes.

    All shards are written when it ends, whatever ends it. An error of the thread is raised by the next `write`, or at
    the end.
    """

    def __init__(self, shards: PredictionShards) -> None:
        self.shards = shards
        self._queue: Queue[tuple[range, Sequence[Prediction]] | None] = Queue(_QUEUED)
        self._thread = Thread(target=self._write_all, daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if error is None:
            self._raise_error()

    def write(self, blocks: range, predictions: Sequence[Prediction]) -> None:
        """Have the predictions of these batches written; waits while several shards are not written yet."""
        self._raise_error()
        if not self._thread.is_alive():  # only now: data workers, which are forked, must not inherit it
            self._thread.start()
        self._queue.put((blocks, predictions))

    def _write_all(self) -> None:
        while (shard := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self.shards.write(*shard)
                except Exception as error:  # it is raised in the thread of the caller
                    self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
