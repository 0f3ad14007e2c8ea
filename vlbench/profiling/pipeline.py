"""Throughput with a data loader: images are decoded and prepared while the model runs, as in a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset

from vlbench.core.errors import is_out_of_memory
from vlbench.core.profile import Pipeline, ProfileSpec
from vlbench.data.parallel import spare_processes
from vlbench.profiling.build import BuiltModel
from vlbench.profiling.stages import LoadedInputs, ModelInputs, StagedModel
from vlbench.profiling.stopping_rule import StoppingRule, summarize_times
from vlbench.profiling.sweep import BatchCost, repeat_inputs
from vlbench.profiling.timing import Durations, Stage, measure_one, run_once

_PREFETCHED = 2
"""Batches that each process of torch's loader prepares ahead; they are used up before the first batch that counts."""


def measure_pipeline(
    built: BuiltModel,
    spec: ProfileSpec,
    inputs: ModelInputs,
    largest: int,
    cost: BatchCost,
    device: torch.device,
    max_seconds: float,
    keep: Callable[[Durations, int], None] = lambda durations, size: None,
) -> Pipeline:
    """Examples per second from files to answers, in batches of one size, with as many loader processes as in a run.

    inputs: one example, which is repeated. largest: the batch size; it is halved as often as needed to end within the
    time, which is predicted from the cost of some batch. keep: called with the raw durations and the batch size.
    """
    workers = spare_processes()
    size, needed = largest, _least_seconds(cost, largest, workers)
    while needed > max_seconds and size > 1:
        size //= 2
        needed = _least_seconds(cost, size, workers)
    if needed > max_seconds:
        return Pipeline(batch=1, workers=workers, error=f"would take {needed:.1f} s, and {max_seconds:.1f} s are left")
    try:
        staged = built.with_inputs(repeat_inputs(inputs, size), device)
        durations = _measure_batches(staged, spec, workers, device, max_seconds)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return Pipeline(batch=size, workers=workers, error="out of memory")
    keep(durations, size)
    rate = size * len(durations.whole) / sum(durations.whole)
    return Pipeline(batch=size, workers=workers, examples_per_second=rate, ms=summarize_times(durations.whole))


def _least_seconds(cost: BatchCost, size: int, workers: int) -> float:
    """Seconds of all batches that do not count and of one that does; each takes its loading or the model's pass."""
    scaled = cost.scaled_to(size)
    loading = (scaled.decode + scaled.preprocess) / max(workers, 1)
    batch = scaled.model + loading if workers == 0 else max(scaled.model, loading)
    return (2 + _PREFETCHED * workers) * batch


def _measure_batches(
    staged: StagedModel, spec: ProfileSpec, workers: int, device: torch.device, max_seconds: float
) -> Durations:
    """The durations of the batches that count."""
    begun = time.perf_counter()
    batches = iter(DataLoader(_EndlessBatches(staged), batch_size=None, num_workers=workers))
    stage = Stage("", lambda: run_once(staged.use_inputs(next(batches)), device))
    for _ in range(1 + _PREFETCHED * workers):
        stage.run()
    rule = StoppingRule(spec.iterations, spec.seconds, spec.precision)
    return measure_one([stage], rule, max_seconds - (time.perf_counter() - begun), device, warmup=0)


class _EndlessBatches(IterableDataset[LoadedInputs]):
    """The same batch again and again, read from its files each time."""

    def __init__(self, staged: StagedModel) -> None:
        self.staged = staged

    def __iter__(self) -> Iterator[LoadedInputs]:
        while True:
            yield self.staged.load_inputs()
