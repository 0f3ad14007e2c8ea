"""The machine as the engine uses it: device, precision, seeds, and what a phase of work cost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from vlbench.core.errors import VlbenchError
from vlbench.engine.runtime.ranks import on_cpu

PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def make_accelerator(
    device: str | None, dtype: Literal["float32", "bfloat16", "float16"], threads: int | None = None
) -> Accelerator:
    """Accelerate on the device asked for; None takes the best there is. threads: of the CPU, None for all.

    Raises:
        VlbenchError: the device is not there.
    """
    if device not in (None, "cpu", "cuda", "mps"):
        raise VlbenchError(f"--device {device} is unknown: expected cpu, cuda or mps")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device in there and not there[device]:
        raise VlbenchError(f"--device {device} is not there: torch {torch.__version__} sees none; use --device cpu")
    # Accelerate keeps its first settings for the whole process; a second run may ask for others.
    AcceleratorState._reset_state(reset_partial_state=True)
    if threads is not None:
        torch.set_num_threads(threads)
    # A head may leave parts of its backbone unused, such as the last layer's states of regions.
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=on_cpu(device), mixed_precision=PRECISION[dtype], kwargs_handlers=[wrapping])


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch. Data loader workers are seeded from the loader's own generator."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 in milliseconds; empty where nothing was measured."""
    if not seconds:
        return {}
    levels = numpy.percentile(numpy.asarray(seconds) * 1000, [50, 90, 99])
    return {name: float(level) for name, level in zip(("p50", "p90", "p99"), levels, strict=True)}


@dataclass
class Clock:
    """Seconds per named phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
