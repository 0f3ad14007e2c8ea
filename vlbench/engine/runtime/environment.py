"""The machine as the engine uses it: device, precision, compilation, seeds, and the duration of phases."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, GradientAccumulationPlugin

from vlbench.core.accelerate_env import TORCH_DEVICE, asks_for_fsdp, remove_variables
from vlbench.core.errors import VlbenchError
from vlbench.core.spec import Dtype, MatmulPrecision
from vlbench.engine.runtime.ranks import on_cpu

PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""vlbench's name of a precision -> Accelerate's."""


def make_accelerator(
    device: str | None, dtype: Dtype, threads: int | None = None, matmul_precision: MatmulPrecision = "highest"
) -> Accelerator:
    """An Accelerator on the requested device; None selects the best one. threads: of the CPU, None uses all cores.

    matmul_precision: torch's for products of float32 matrices, in this process from now on.

    Every argument that the engine relies on is set here, and Accelerate's variables that could change a number are
    removed from the environment. Raises a VlbenchError as `check_device` does.
    """
    remove_variables(device)
    check_device(device, dtype)
    # Accelerate keeps its first settings for the whole process; a second run may need others.
    AcceleratorState._reset_state(reset_partial_state=True)
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul_precision)
    accumulation = GradientAccumulationPlugin(num_steps=1, adjust_scheduler=False, sync_with_dataloader=False)
    accelerator = Accelerator(
        cpu=on_cpu(device),
        mixed_precision=PRECISION[dtype],
        gradient_accumulation_plugin=accumulation,
        dynamo_backend="no",
        # The engine splits batches over processes and steps the schedule itself.
        dataloader_config=DataLoaderConfiguration(split_batches=False, dispatch_batches=False, even_batches=False),
        step_scheduler_with_optimizer=False,
        rng_types=["generator"],
        # A head may not use all parts of its backbone, such as the last layer's states of regions.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    _check_kind(accelerator.device.type, dtype)
    return accelerator


@contextmanager
def same_threads() -> Iterator[None]:
    """Restore torch's number of CPU threads at the end of the block, for the next run of this process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check_device(device: str | None, dtype: Dtype) -> None:
    """Raise a VlbenchError if the device is unknown or not available, or cannot do what is asked of it.

    device: None is the best available one.
    """
    ambient = os.environ.get(TORCH_DEVICE) if device is None else None
    option, kind = ("--device", device) if ambient is None else (TORCH_DEVICE, ambient.split(":")[0])
    if kind not in (None, "cpu", "cuda", "mps"):
        raise VlbenchError(f"{option} {kind} is unknown: expected cpu, cuda or mps")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind in available and not available[kind]:
        raise VlbenchError(f"{option} {kind} is not there: torch {torch.__version__} sees none; use --device cpu")
    _check_kind(kind or next((name for name, is_available in available.items() if is_available), "cpu"), dtype)


def _check_kind(kind: str, dtype: str) -> None:
    """Reject on a CPU what Accelerate would ignore there, while the record says otherwise: float16 and its FSDP."""
    if kind == "cpu" and dtype == "float16":
        raise VlbenchError("--dtype float16 needs a GPU, and this run is on a CPU: use --dtype bfloat16 or float32")
    if kind == "cpu" and asks_for_fsdp():
        raise VlbenchError(
            "ACCELERATE_USE_FSDP asks for Accelerate's FSDP, which needs GPUs, and this run is on a CPU: use --fsdp, "
            "which needs none, or unset it"
        )


def seed_everything(seed: int) -> None:
    """Seed the generators of python, numpy and torch. Data loader workers are seeded by the loader's own generator."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def check_compiler(device: torch.device) -> None:
    """Raise a VlbenchError if torch cannot compile for this device, tried with a trivial function."""
    try:
        torch.compile(lambda values: values + values)(torch.ones(2, device=device))
    except Exception as error:  # a compiler may raise any type of error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise VlbenchError(
            f"--compile does not work here ({reason.strip()[:160]}): install a C++ compiler, or leave it out"
        ) from None


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 of durations, in milliseconds; empty where nothing was measured."""
    if not seconds:
        return {}
    levels = numpy.percentile(numpy.asarray(seconds) * 1000, [50, 90, 99])
    return {name: float(level) for name, level in zip(("p50", "p90", "p99"), levels, strict=True)}


@dataclass
class Clock:
    """Measures wall-clock time by phase. seconds: total per phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent in the block to the phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
