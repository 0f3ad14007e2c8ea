"""Throughput with a loader: pictures are decoded and prepared beside the model, as in a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset

from vlbench.core.errors import is_out_of_memory
from vlbench.core.profile import Pipeline, ProfileSpec
from vlbench.data.parallel import spare_processes
from vlbench.profiling.build import Opened
from vlbench.profiling.stages import Batch, Loaded, Subject
from vlbench.profiling.stopping_rule import Rule, times
from vlbench.profiling.sweep import Cost, repeated
from vlbench.profiling.timing import Durations, Stage, measure_one, once

_AHEAD = 2
"""Batches that each process of torch's loader makes ahead; before the first that counts they are used up."""


def pipeline(
    opened: Opened,
    spec: ProfileSpec,
    batch: Batch,
    largest: int,
    cost: Cost,
    device: torch.device,
    max_seconds: float,
    keep: Callable[[Durations, int], None] = lambda durations, size: None,
) -> Pipeline:
    """Examples per second from files to answers, over batches of one size, in as many processes as a run would use.

    Args:
        batch: of one example, which is repeated.
        largest: the size of a batch; half of it, and so on, where it would take longer than there is time.
        cost: of a batch, from which that is told.
        max_seconds: in which it ends.
        keep: given the raw values and the size of a batch.
    """
    workers = spare_processes()
    size, needed = largest, _least(cost, largest, workers)
    while needed > max_seconds and size > 1:
        size //= 2
        needed = _least(cost, size, workers)
    if needed > max_seconds:
        return Pipeline(batch=1, workers=workers, error=f"would take {needed:.1f} s, and {max_seconds:.1f} s are left")
    try:
        found = _measured(opened.subject(repeated(batch, size), device), spec, workers, device, max_seconds)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return Pipeline(batch=size, workers=workers, error="out of memory")
    keep(found, size)
    rate = size * len(found.whole) / sum(found.whole)
    return Pipeline(batch=size, workers=workers, examples_per_second=rate, ms=times(found.whole))


def _least(cost: Cost, size: int, workers: int) -> float:
    """Seconds of all batches that do not count and one that does, each as long as its loading and the model's pass."""
    one = cost.of(size)
    loading = (one.decode + one.preprocess) / max(workers, 1)
    each = one.model + loading if workers == 0 else max(one.model, loading)
    return (2 + _AHEAD * workers) * each


def _measured(subject: Subject, spec: ProfileSpec, workers: int, device: torch.device, max_seconds: float) -> Durations:
    """Of each batch that counts."""
    begun = time.perf_counter()
    batches = iter(DataLoader(_Endless(subject), batch_size=None, num_workers=workers))
    turn = Stage("", lambda: once(subject.take(next(batches)), device))
    for _ in range(1 + _AHEAD * workers):
        turn.run()
    rule, left = Rule(spec.iterations, spec.seconds, spec.precision), max_seconds - (time.perf_counter() - begun)
    return measure_one([turn], rule, left, device, warmup=0)


class _Endless(IterableDataset[Loaded]):
    """The same batch again and again, read from its files each time."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __iter__(self) -> Iterator[Loaded]:
        while True:
            yield self.subject.load()
