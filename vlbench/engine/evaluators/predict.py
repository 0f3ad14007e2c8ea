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
from vlbench.engine.batching.prediction_shards import Shards, cut
from vlbench.engine.runtime.memory import within_memory
from vlbench.engine.runtime.progress_timing import Pace, Timing

Ready = TypeVar("Ready")
"""The input of a forward pass."""
Found: TypeAlias = dict[range, list[Prediction]]
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
    examples: Examples, work: Work[Ready], pace: Pace, shards: Shards | None = None
) -> tuple[list[Prediction], Timing]:
    """Answer the examples: rank 0 gets all predictions in their order, the other ranks none.

    Batches are cut here once and shards of them handed to ranks whole, so the same examples always meet the same
    neighbours. shards: where predictions are kept as they come; what lies there is not made again. None keeps nothing.

    Raises:
        CoverageError: the ids answered are not those of the examples, each once.
        DataError: a shard cannot be written, or another process made it on another disk.
        VlbenchError: exit 9, there is no memory for a single example.
        Interrupted: asked to stop.
    """
    blocks, timing = answering_blocks(examples, pace.batch_size), Timing()
    parts = {part: [examples[row].id for block in part for row in blocks[block]] for part in cut(len(blocks))}
    found = _read(shards, parts) if pace.ranks.is_main else {}
    missing = pace.ranks.mine(pace.ranks.share([part for part in parts if part not in found]))
    with torch.inference_mode(), pace.accelerator.autocast():
        for part, predictions in _answered([*missing], blocks, work, pace, timing):
            found[part] = predictions
            if shards is not None:
                shards.write(part, predictions)
    answered = zip((row for block in blocks for row in block), _merged(found, parts, shards, pace), strict=False)
    return [prediction for _, prediction in sorted(answered, key=lambda pair: pair[0])], timing


def _read(shards: Shards | None, parts: Mapping[range, Sequence[str]]) -> Found:
    if shards is None:
        return {}
    return {part: kept for part, ids in parts.items() if (kept := shards.read(part, ids)) is not None}


def _answered(
    parts: Sequence[range], blocks: Sequence[Sequence[int]], work: Work[Ready], pace: Pace, timing: Timing
) -> Iterator[tuple[range, list[Prediction]]]:
    """The predictions of each part, as they come."""
    own = [blocks[number] for part in parts for number in part]
    total = sum(map(len, own))
    ready = loader(work.prepare(own), pace.workers, pace.accelerator.device)
    for part in parts:
        predictions = list[Prediction]()
        started = time.perf_counter()
        for number in part:
            predictions += _in_memory(next(ready), blocks[number], work, pace)
            now = time.perf_counter()
            timing.batches.append(now - started)
            timing.examples += len(blocks[number])
            started = now
            if number + 1 < part.stop:
                pace.step(timing.examples, total)
        yield part, predictions
        pace.step(timing.examples, total)


def _in_memory(ready: Ready, rows: Sequence[int], work: Work[Ready], pace: Pace) -> list[Prediction]:
    """The predictions of a prepared batch, of parts of it where memory does not suffice."""

    def answer(some: Sequence[int]) -> list[Prediction]:
        return work.answer(ready if len(some) == len(rows) else work.prepare([some])[0])

    return within_memory(rows, answer, pace.progress.say, pace.what)


def _merged(found: Found, parts: Mapping[range, Sequence[str]], shards: Shards | None, pace: Pace) -> list[Prediction]:
    """All predictions in the order of the blocks on rank 0, none on the others."""
    if shards is None:
        found = {part: made for one in pace.ranks.gather_objects(found) for part, made in one.items()}
    pace.ranks.barrier()
    if not pace.ranks.is_main:
        return []
    found = found | _read(shards, {part: ids for part, ids in parts.items() if part not in found})
    if lost := [str(part) for part in parts if part not in found]:
        raise DataError(
            f"predictions that another process made are not in {shards.folder if shards else 'memory'} "
            f"({first_five(lost)}): give an --output-path on a disk that all machines share"
        )
    predictions = [one for part in parts for one in found[part]]
    given = [one.example_id for one in predictions]
    if given != [name for ids in parts.values() for name in ids]:
        raise CoverageError(f"{len(given):,} predictions of {pace.what} do not match the examples one to one")
    return predictions
