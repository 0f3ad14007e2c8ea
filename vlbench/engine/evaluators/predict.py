"""Predictions for examples, each id once, over any number of processes and however often interrupted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias, TypeVar

import torch

from vlbench.core.errors import CoverageError, DataError, first_five
from vlbench.core.examples import Examples
from vlbench.core.results import Prediction
from vlbench.core.task import ids_of
from vlbench.engine.batching.batches import Prepared, answering_blocks, loader
from vlbench.engine.batching.isolation import Failures, isolate, name_example
from vlbench.engine.batching.prediction_shards import PredictionShards, ShardWriter, shard_ranges
from vlbench.engine.runtime.memory import within_memory
from vlbench.engine.runtime.progress_timing import Pace, Timing

Ready = TypeVar("Ready")
"""The input of a forward pass."""
Result = TypeVar("Result")
ByRange: TypeAlias = dict[range, list[Prediction]]
"""Predictions of batches, by the range of these."""
ENOUGH = 100
"""Examples after which a process stops if more than half of them failed."""


@dataclass(frozen=True)
class Work(Generic[Ready]):
    """The two halves of answering a block of rows.

    prepare: makes the input of a forward pass (in workers where there are any). answer: the predictions of an input.
    launch: begins to answer an input on a device that computes asynchronously; what it returns waits for the
    predictions. None: there is no such device.
    """

    prepare: Callable[[Sequence[int]], Ready]
    answer: Callable[[Ready], list[Prediction]]
    launch: Callable[[Ready], Callable[[], list[Prediction]]] | None = None


def predict_all(
    examples: Examples, work: Work[Ready], pace: Pace, shards: PredictionShards | None = None
) -> tuple[list[Prediction], Timing]:
    """Answer the examples: rank 0 returns all predictions in the order of the examples, the other ranks none.

    Batches are cut once and given to ranks in whole shards, so the same examples are always in the same batch.
    shards: where predictions are kept as they come, by a thread, and read instead of computed again; None keeps
    nothing.
    If `pace.records_errors`, an example that cannot be answered gets a prediction with the status `error` and the
    reason. Its batch is answered without it.

    Raises:
        CoverageError: the ids answered are not those of the examples, each once.
        DataError: a shard cannot be written, or another process wrote it to another disk.
        VlbenchError: exit 9, there is no memory for a single example; or more than half of the examples failed.
        Interrupted: asked to stop.
    """
    blocks, timing = answering_blocks(examples, pace.batch_size), Timing()
    names = ids_of(examples)
    ids = {part: [names[row] for block in part for row in blocks[block]] for part in shard_ranges(len(blocks))}
    predictions = _without_retried(_read(shards, ids), pace) if pace.ranks.is_main else {}
    missing = pace.ranks.mine(pace.ranks.share([part for part in ids if part not in predictions]))
    own = list[Prediction]()
    writing = ShardWriter(shards) if shards is not None else nullcontext()
    with writing as writer, torch.inference_mode(), pace.accelerator.autocast():
        for part, answers in _answer_parts(missing, blocks, examples, work, pace, timing):
            predictions[part] = answers
            own += answers
            if len(own) >= ENOUGH:
                _reject_half_failed(own)
            if writer is not None:
                writer.write(part, answers)
    merged = _merge(predictions, ids, shards, pace)
    _reject_half_failed(merged)
    answered = zip((row for block in blocks for row in block), merged, strict=False)
    return [prediction for _, prediction in sorted(answered, key=lambda pair: pair[0])], timing


def _read(shards: PredictionShards | None, ids: Mapping[range, Sequence[str]]) -> ByRange:
    if shards is None:
        return {}
    return {part: answers for part, names in ids.items() if (answers := shards.read(part, names)) is not None}


def _without_retried(kept: ByRange, pace: Pace) -> ByRange:
    """The parts that are not answered again: those with failed examples are, if errors stop or most examples failed."""
    if pace.records_errors and not _half_failed([item for answers in kept.values() for item in answers]):
        return kept
    return {part: answers for part, answers in kept.items() if not _failed(answers)}


def _failed(predictions: Sequence[Prediction]) -> list[Prediction]:
    return [prediction for prediction in predictions if prediction.status == "error"]


def _half_failed(predictions: Sequence[Prediction]) -> bool:
    return 2 * len(_failed(predictions)) > len(predictions)


def _reject_half_failed(predictions: Sequence[Prediction]) -> None:
    """Raise a DataError if more than half of the examples failed."""
    if _half_failed(predictions):
        first, *others = _failed(predictions)
        raise DataError(
            f"{1 + len(others):,} of {len(predictions):,} examples cannot be answered, more than --on-error record "
            f"accepts (a half): mend what they have in common and run the same command again ({first.example_id!r}: "
            f"{first.error})"
        )


def _answer_parts(
    parts: Sequence[range],
    blocks: Sequence[Sequence[int]],
    examples: Examples,
    work: Work[Ready],
    pace: Pace,
    timing: Timing,
) -> Iterator[tuple[range, list[Prediction]]]:
    """The predictions of each part, as they come."""
    own = [blocks[number] for part in parts for number in part]
    total, answered = sum(map(len, own)), _answer_blocks(own, examples, work, pace)
    for part in parts:
        predictions = list[Prediction]()
        started = time.perf_counter()
        for number in part:
            predictions += next(answered)
            now = time.perf_counter()
            timing.batches.append(now - started)
            timing.examples += len(blocks[number])
            started = now
            if number + 1 < part.stop:
                pace.step(timing.examples, total)
        yield part, predictions
        pace.step(timing.examples, total)


def _answer_blocks(
    blocks: Sequence[Sequence[int]], examples: Examples, work: Work[Ready], pace: Pace
) -> Iterator[list[Prediction]]:
    """The predictions of each block. A block is launched before those of the one before it are waited for."""
    prepare = partial(isolate if pace.records_errors else partial(_at_once, examples=examples), work=work.prepare)
    loaded = loader(Prepared(blocks, prepare), pace.workers, pace.accelerator.device)
    begun = deque[Callable[[], list[Prediction]]]()
    for rows, (ready, failures) in zip(blocks, loaded, strict=True):
        begun.append(_begin_block(ready, rows, failures, examples, work, pace))
        if work.launch is None or len(begun) > 1:
            yield begun.popleft()()
    if begun:
        yield begun.popleft()()


def _begin_block(
    ready: Ready | None, rows: Sequence[int], failures: Failures, examples: Examples, work: Work[Ready], pace: Pace
) -> Callable[[], list[Prediction]]:
    """Launch a prepared block if its device computes asynchronously; what is returned gives a prediction per row.

    If the launch or its predictions fail, the block is answered again by `_answer_batch`.
    """
    rest = [row for row in rows if row not in failures]
    launched: Callable[[], list[Prediction]] | None = None
    if work.launch is not None and ready is not None and rest:
        with suppress(Exception):
            launched = work.launch(ready)

    def wait() -> list[Prediction]:
        if launched is not None:
            with suppress(Exception):
                return _in_order(rows, examples, launched(), failures)
        answers, failed = _answer_batch(ready, rest, examples, work, pace)
        return _in_order(rows, examples, answers, failures | failed)

    return wait


def _at_once(
    rows: Sequence[int], work: Callable[[Sequence[int]], Result], examples: Examples
) -> tuple[Result, Failures]:
    """As `isolate`, for errors that stop the run; an unexpected one gets the example's id as a note."""
    try:
        return work(rows), {}
    except Exception as error:
        name_example(error, rows, examples, work)
        raise


def _answer_batch(
    ready: Ready | None, rows: Sequence[int], examples: Examples, work: Work[Ready], pace: Pace
) -> tuple[list[Prediction], Failures]:
    """The predictions of the rows of a prepared batch, of parts of it where memory does not suffice."""

    def answer(some: Sequence[int]) -> list[Prediction]:
        return work.answer(ready if ready is not None and len(some) == len(rows) else work.prepare(some))

    def answer_all(some: Sequence[int]) -> list[Prediction]:
        return within_memory(some, answer, pace.progress.say, pace.what)

    if not rows:
        return [], {}
    answers, failures = (isolate if pace.records_errors else partial(_at_once, examples=examples))(rows, answer_all)
    return answers or [], failures


def _in_order(
    rows: Sequence[int], examples: Examples, answers: Sequence[Prediction], failures: Failures
) -> list[Prediction]:
    """A prediction per row: the answers, and errors for the rows that failed."""
    given = iter(answers)
    return [
        Prediction(examples[row].id, "", status="error", error=failures[row]) if row in failures else next(given)
        for row in rows
    ]


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
