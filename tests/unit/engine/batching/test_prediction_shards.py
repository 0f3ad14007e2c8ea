"""Predictions on disk are read back to the last bit, or not at all."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from vlbench.core.errors import DataError
from vlbench.core.results import Prediction
from vlbench.engine.batching.prediction_shards import (
    SHARDS,
    PredictionShards,
    ShardWriter,
    shard_ranges,
    state_sha256,
)

BLOCKS = range(4, 6)
PREDICTIONS = [
    Prediction("a", "yes", {"yes": math.pi / 4, "no": math.nextafter(0.2, 1), "": 5e-324}),
    Prediction("é\n", "", {}, "unparsed", "", "I'd say: «two»"),
    Prediction("c", "no", {"no": 1.0}, "error", "broken"),
]
IDS = [prediction.example_id for prediction in PREDICTIONS]


@pytest.mark.parametrize("blocks", [0, 1, 2, SHARDS - 1, SHARDS, SHARDS + 1, 10 * SHARDS + 7])
def test_every_batch_is_in_one_shard_in_order(blocks: int) -> None:
    parts = shard_ranges(blocks)
    assert [number for part in parts for number in part] == [*range(blocks)]
    assert len(parts) <= SHARDS
    assert all(parts)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    shards = PredictionShards(tmp_path / "real", "key")
    assert shards.read(BLOCKS, IDS) is None
    shards.write(BLOCKS, PREDICTIONS)
    again = shards.read(BLOCKS, IDS)
    assert again == PREDICTIONS
    assert again is not None
    assert [*again[0].scores] == ["yes", "no", ""]
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["batches-000004-000005.parquet"]


def test_shards_of_other_weights_or_examples_are_not_read(tmp_path: Path) -> None:
    PredictionShards(tmp_path, "key").write(BLOCKS, PREDICTIONS)
    assert PredictionShards(tmp_path, "another").read(BLOCKS, IDS) is None
    assert PredictionShards(tmp_path, "key").read(BLOCKS, IDS[::-1]) is None
    assert PredictionShards(tmp_path, "key").read(BLOCKS, IDS[:2]) is None
    assert PredictionShards(tmp_path, "key").read(range(4, 7), IDS) is None


def test_damaged_shards_are_not_read(tmp_path: Path) -> None:
    shards = PredictionShards(tmp_path, "key")
    shards.write(BLOCKS, PREDICTIONS)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        assert shards.read(BLOCKS, IDS) in (None, PREDICTIONS)
        path.write_bytes(content[:place])
        assert shards.read(BLOCKS, IDS) is None


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space"):
        PredictionShards(tmp_path, "key").write(BLOCKS, PREDICTIONS)
    assert not [*tmp_path.iterdir()]


def test_the_hash_depends_on_weights_and_buffers() -> None:
    torch.manual_seed(0)
    first, second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    known = state_sha256(first)
    assert known == state_sha256(second)
    second(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))  # buffers count too
    assert state_sha256(second) != known
    first.weight.data[1] = math.nextafter(1.0, 2.0)
    assert state_sha256(first) == known  # beyond float32
    first.weight.data[1] = 1.0 + 2**-23
    assert state_sha256(first) != known


@dataclass(frozen=True)
class Slow(PredictionShards):
    """Shards whose writing waits until it may begin, and fails for batch 2."""

    begin: threading.Event = field(default_factory=threading.Event)
    order: list[tuple[str, int]] = field(default_factory=list)

    def write(self, blocks: range, predictions: Sequence[Prediction]) -> None:
        assert self.begin.wait(60)
        self.order.append((threading.current_thread().name, blocks.start))
        if blocks.start == 2:
            raise DataError("the disk is full")
        super().write(blocks, predictions)


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    return Slow(tmp_path, "key")


@pytest.mark.parametrize("stopped", [False, True])
def test_a_thread_writes_all_in_order_whatever_ends_the_work(slow: Slow, stopped: bool) -> None:
    def work() -> None:
        with ShardWriter(slow) as writer:
            for number in (0, 1):
                writer.write(range(number, number + 1), PREDICTIONS)
            assert slow.order == []  # the caller has not waited
            slow.begin.set()
            if stopped:
                raise KeyboardInterrupt

    if stopped:
        with pytest.raises(KeyboardInterrupt):
            work()
    else:
        work()
    assert [number for _, number in slow.order] == [0, 1]
    assert len({thread for thread, _ in slow.order}) == 1
    assert slow.read(range(1), IDS) == slow.read(range(1, 2), IDS) == PREDICTIONS


def test_an_error_of_the_thread_is_raised_by_the_caller(slow: Slow) -> None:
    slow.begin.set()
    with pytest.raises(DataError, match="the disk is full"), ShardWriter(slow) as writer:
        writer.write(range(2, 3), PREDICTIONS)
    with pytest.raises(DataError, match="the disk is full"), ShardWriter(slow) as writer:
        for number in range(2, 99):
            writer.write(range(number, number + 1), PREDICTIONS)
    assert len(slow.order) < 9  # nothing is written after an error
    with ShardWriter(slow):
        pass
