"""Throughput: growing batches to the fastest, or those that were asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from vlbench.core.profile import PIPELINE, ProfileSpec, Rate
from vlbench.profiling import machine
from vlbench.profiling.build import Opened
from vlbench.profiling.rule import Rule, times
from vlbench.profiling.subject import Batch
from vlbench.profiling.timing import measure_one, once

_GAIN = 1.02
"""A batch twice as large must be so much faster per example, or the sweep has seen the best."""
_LARGEST = 4096
_ITERATIONS = 3
_PARTS = 4
"""One size may take so large a part of the time that is left, so that others come after it."""


def sweep(opened: Opened, spec: ProfileSpec, batch: Batch, device: torch.device, max_seconds: float) -> Iterator[Rate]:
    """Examples per second of the model alone, batch size by batch size.

    Without sizes in the spec they double from 1 until two in a row are hardly faster than the best before them. It ends
    when memory or time does, which the last rate then says.
    """
    begun, best, flat = time.perf_counter(), 0.0, 0
    for number, size in enumerate(spec.batches or _doubling()):
        left = max_seconds - (time.perf_counter() - begun)
        if left <= 0:
            yield Rate(batch=size, error=f"out of time after {max_seconds:.0f} s")
            return
        parts = len(spec.batches) - number if spec.batches else _PARTS
        rate = _rate(opened, spec, repeated(batch, size), device, left / parts)
        yield rate
        if rate.error:
            return
        flat = 0 if rate.examples_per_second > _GAIN * best else flat + 1
        best = max(best, rate.examples_per_second)
        if flat == 2 and not spec.batches:
            return


def _doubling() -> Iterator[int]:
    size = 1
    while size <= _LARGEST:
        yield size
        size *= 2


def repeated(batch: Batch, size: int) -> Batch:
    """The batch so many times over."""
    return Batch(batch.refs * size, batch.texts * size)


def _rate(opened: Opened, spec: ProfileSpec, batch: Batch, device: torch.device, left: float) -> Rate:
    size = len(batch.texts)
    try:
        stages = opened.subject(batch, device).stages()
        once(stages, device)  # decodes and prepares too, which then is left out
        alone = [stage for stage in stages if stage.name not in PIPELINE]
        used = machine.joules(device) if spec.energy else None
        rule = Rule(_ITERATIONS, spec.seconds, spec.precision)
        found = measure_one(alone, rule, left, device)
    except (torch.OutOfMemoryError, MemoryError):
        return Rate(batch=size, error="out of memory")
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return Rate(batch=size, error="out of memory")
    ms = times(found.whole)
    runs = len(found.whole) + len(found.warmup)
    after = machine.joules(device) if used is not None else None
    energy = (after - used) / (runs * size) if after is not None and used is not None else None
    return Rate(batch=size, examples_per_second=1000 * size / ms.p50, ms=ms, joules_per_example=energy)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """The CPU's allocator raises a plain RuntimeError."""
    return any(word in str(error) for word in ("DefaultCPUAllocator", "out of memory"))


def fastest(rates: Sequence[Rate]) -> Rate | None:
    """The best of those that were measured."""
    measured = [rate for rate in rates if not rate.error]
    return max(measured, key=lambda rate: rate.examples_per_second, default=None)
