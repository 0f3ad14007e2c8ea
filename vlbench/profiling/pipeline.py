"""Throughput with a loader: pictures are decoded and prepared beside the model, as in a run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset

from vlbench.core.profile import Pipeline, ProfileSpec
from vlbench.data.parallel import spare_processes
from vlbench.profiling.build import Opened
from vlbench.profiling.rule import Rule, times
from vlbench.profiling.subject import Batch, Loaded, Subject
from vlbench.profiling.timing import once

_ITERATIONS = 3
_AHEAD = 2
"""Batches that each process of torch's loader makes ahead; when the clock starts they have been used up."""


def pipeline(opened: Opened, spec: ProfileSpec, batch: Batch, device: torch.device, max_seconds: float) -> Pipeline:
    """Examples per second from files to answers, over batches of one size, in as many processes as a run would use.

    Args:
        max_seconds: after which it ends, but for three batches.
    """
    subject, workers = opened.subject(batch, device), spare_processes()
    batches = iter(DataLoader(_Endless(subject), batch_size=None, num_workers=workers))
    for _ in range(1 + _AHEAD * workers):
        once(subject.take(next(batches)), device)
    rule, seconds = Rule(_ITERATIONS, spec.seconds, spec.precision), list[float]()
    begun = time.perf_counter()
    while len(seconds) < _ITERATIONS or (not rule.satisfied(seconds) and time.perf_counter() - begun < max_seconds):
        start = time.perf_counter()
        once(subject.take(next(batches)), device)
        seconds.append(time.perf_counter() - start)
    size = len(batch.texts)
    return Pipeline(
        batch=size, workers=workers, examples_per_second=size * len(seconds) / sum(seconds), ms=times(seconds)
    )


class _Endless(IterableDataset[Loaded]):
    """The same batch again and again, read from its files each time."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __iter__(self) -> Iterator[Loaded]:
        while True:
            yield self.subject.load()
