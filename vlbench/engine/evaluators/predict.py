"""Predictions for examples, each id once, over any number of processes and however often interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import torch
from torch.utils.data import Dataset

from vlbench.core.errors import CoverageError, DataError, first_five
from vlbench.core.examples import Examples
from vlbench.core.results import Prediction
from vlbench.engine.batching.batches import answering_blocks, loader
from vlbench.engine.batching.prediction_shards import PredictionShards, shard_ranges
from vlbench.engine.runtime.memory import within_memory
from vlbench.engine.runtime.progress_timing import Pace, Timing

Ready = TypeVar("Ready")
"""The input of a forward pass."""
ByRange: TypeAlias = dict[range, list[Prediction]]
"""Predictions of batches, by the range of these."""


@dataclass(frozen=True)
class Work(Generic[Ready]):
    """The two halves of answering a block of rows.

    prepare: makes the input of a forward pass of each block (in workers where there are any). answer: the predictions
    of an input.
    """

    prepare: Callable[[Sequence[Sequence[int]]], Dataset[Ready]]
    answer: Callable[[Ready], list[Prediction]]


def predict_all(
    examples: Examples, work: Work[Ready], pace: Pace, shards: PredictionShards | None = None
) -> tuple[list[Prediction], Timing]:
    """Answer the examples: rank 0 returns all predictions in the order of the examples, the other ranks none.

    Batches are cut once and given to ranks in whole shards, so the same examples are always in the same batch.
    shards: where predictions are kept as they come, and read instead of computed again; None keeps nothing.

    Raises:
        CoverageError: the ids answered are not those of the examples, each once.
        DataError: a shard cannot be written, or another process wrote it to another disk.
        VlbenchError: exit 9, there is no memory for a single example.
        Interrupted: asked to stop.
    """
    blocks, timing = answering_blocks(examples, pace.batch_size), Timing()
    ids = {part: [examples[row].id for block in part for row in blocks[block]] for part in shard_ranges(len(blocks))}
    predictions = _read(shards, ids) if pace.ranks.is_main else {}
    missing = pace.ranks.mine(pace.ranks.share([part for part in ids if part not in predictions]))
    with torch.inference_mode(), pace.accelerator.autocast():
        for part, answers in _answer_parts(missing, blocks, work, pace, timing):
            predictions[part] = answers
            if shards is not None:
                shards.write(part, answers)
    merged = _merge(predictions, ids, shards, pace)
    answered = zip((row for block in blocks for row in block), merged, strict=False)
    return [prediction for _, prediction in sorted(answered, key=lambda pair: pair[0])], timing


def _read(shards: PredictionShards | None, ids: Mapping[range, Sequence[str]]) -> ByRange:
    if shards is None:
        return {}
    return {part: answers for part, names in ids.items() if (answers := shards.read(part, names)) is not None}


def _answer_parts(
    parts: Sequence[range], blocks: Sequence[Sequence[int]], work: Work[Ready], pace: Pace, timing: Timing
) -> Iterator[tuple[range, list[Prediction]]]:
    """The predictions of each part, as they come."""
    own = [blocks[number] for part in parts for number in part]
    total = sum(map(len, own))
    loaded = loader(work.prepare(own), pace.workers, pace.accelerator.device)
    for part in parts:
        predictions = list[Prediction]()
        started = time.perf_counter()
        for number in part:
            predictions += _answer_batch(next(loaded), blocks[number], work, pace)
            now = time.perf_counter()
            timing.batches.append(now - started)
            timing.examples += len(blocks[number])
            started = now
            if number + 1 < part.stop:
                pace.step(timing.examples, total)
        yield part, predictions
        pace.step(timing.examples, total)


def _answer_batch(ready: Ready, rows: Sequence[int], work: Work[Ready], pace: Pace) -> list[Prediction]:
    """The predictions of a prepared batch, of parts of it where memory does not suffice."""

    def answer(some: Sequence[int]) -> list[Prediction]:
        return work.answer(ready if len(some) == len(rows) else work.prepare([some])[0])

    return within_memory(rows, answer, pace.progress.say, pace.what)


def _merge(
    predictions: ByRange, ids: Mapping[range, Sequence[str]], shards: PredictionShards | None, pace: Pace
) -> list[Prediction]:
    """All predictions in the order of the blocks on rank 0, none on the others."""
    if shards is None:
        predictions = {part: own[part] for own in pace.ranks.gather_objects(predictions) for part in own}
    pace.ranks.barrier()
    if not pace.ranks.is_main:
        return []
    predictions |= _read(shards, {part: names for part, names in ids.items() if part not in predictions})
    if lost := [str(part) for part in ids if part not in predictions]:
        raise DataError(
            f"predictions that another process made are not in {shards.folder if shards else 'memory'} "
            f"({first_five(lost)}): give an --output-path on a disk that all machines share"
        )
    merged = [prediction for part in ids for prediction in predictions[part]]
    if [prediction.example_id for prediction in merged] != [name for names in ids.values() for name in names]:
        raise CoverageError(f"{len(merged):,} predictions of {pace.what} do not match the examples one to one")
    return merged
