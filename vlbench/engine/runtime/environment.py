"""The machine as the engine uses it: device, precision, seeds, and what a phase of work cost."""

from __future__ import annotations

import os
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
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, GradientAccumulationPlugin

from vlbench.core.accelerate_env import TORCH_DEVICE, remove_variables
from vlbench.core.errors import VlbenchError
from vlbench.engine.runtime.ranks import on_cpu

PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def make_accelerator(
    device: str | None, dtype: Literal["float32", "bfloat16", "float16"], threads: int | None = None
) -> Accelerator:
    """Accelerate on the device asked for; None takes the best there is. threads: of the CPU, None for all.

    Every argument that the engine relies on is given, so that no variable or config file of Accelerate decides it.
    Variables of Accelerate that could change a number are removed from the process's environment (see `core.ambient`).

    Raises:
        VlbenchError: as `check_device`.
    """
    remove_variables(device)
    check_device(device, dtype)
    # Accelerate keeps its first settings for the whole process; a second run may ask for others.
    AcceleratorState._reset_state(reset_partial_state=True)
    if threads is not None:
        torch.set_num_threads(threads)
    # A head may leave parts of its backbone unused, such as the last layer's states of regions.
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        cpu=on_cpu(device),
        mixed_precision=PRECISION[dtype],
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=1, adjust_scheduler=False, sync_with_dataloader=False
        ),
        dynamo_backend="no",
        # Batches are cut and dealt by the engine, and the schedule is stepped by it.
        dataloader_config=DataLoaderConfiguration(split_batches=False, dispatch_batches=False, even_batches=False),
        step_scheduler_with_optimizer=False,
        rng_types=["generator"],
        kwargs_handlers=[wrapping],
    )
    _check_half(accelerator.device.type, dtype)
    return accelerator


def check_device(device: str | None, dtype: Literal["float32", "bfloat16", "float16"]) -> None:
    """Whether there is such a device, and whether it computes in that precision; None is the best there is.

    Raises:
        VlbenchError: it is unknown or not there, or float16 is asked for on a CPU.
    """
    ambient = os.environ.get(TORCH_DEVICE) if device is None else None
    asked, kind = ("--device", device) if ambient is None else (TORCH_DEVICE, ambient.split(":")[0])
    if kind not in (None, "cpu", "cuda", "mps"):
        raise VlbenchError(f"{asked} {kind} is unknown: expected cpu, cuda or mps")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind in there and not there[kind]:
        raise VlbenchError(f"{asked} {kind} is not there: torch {torch.__version__} sees none; use --device cpu")
    _check_half(kind or next((name for name, found in there.items() if found), "cpu"), dtype)


def _check_half(kind: str, dtype: str) -> None:
    """Accelerate computes in float32 on a CPU where it is asked for float16, which the record must not call float16."""
    if kind == "cpu" and dtype == "float16":
        raise VlbenchError("--dtype float16 needs a GPU, and this run is on a CPU: use --dtype bfloat16 or float32")


def remedy_of_nan(accelerator: Accelerator, lr: float | None) -> str:
    """What to do about a loss that is not a number: what the precision in use allows."""
    if accelerator.mixed_precision == "no":
        return f"lower --lr ({lr}), or look for numbers in the data (features, boxes) that are not finite"
    return f"lower --lr ({lr}) or use --dtype float32"


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
