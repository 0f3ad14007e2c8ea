"""Collective operations of the processes in a training step: of fine-tuning and of pretraining."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from vlbench.core.errors import DataError
from vlbench.engine.runtime.randomness import RandomState, random_state

Input = TypeVar("Input")

STRIDE = 1_000_003
"""The difference between the seeds of two processes; a prime, so that neighbouring runs do not share seeds."""


def backward(
    accelerator: Accelerator, wrapped: nn.Module, parts: Iterable[Input], count: int, loss: Callable[[Input], Tensor]
) -> None:
    """Add up the gradients of the losses of several parts; gradients are exchanged in the last one.

    The result is the gradient of the sum over the parts of all processes, where DDP alone would take the mean.

    wrapped: the module as DDP wraps it. count: the number of parts, equal on all processes. loss: of a part, a scalar.
    """
    for number, part in enumerate(parts, start=1):
        with nullcontext() if number == count else accelerator.no_sync(wrapped):
            with accelerator.autocast():
                value = loss(part)
            accelerator.backward(value * accelerator.num_processes)


def total(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """Sum each value over the processes; the result is the same on all of them."""
    if accelerator.num_processes == 1:
        return list(values)
    summed = accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum")
    return [float(value) for value in summed]


def fetched(scalars: Sequence[Tensor]) -> list[float]:
    """The values of scalars on one device, in one copy: each copy waits for all that the device has to do."""
    values: list[float] = torch.stack([scalar.detach().float() for scalar in scalars]).tolist()
    return values


def gather_random_states(accelerator: Accelerator) -> list[RandomState]:
    """The random states of every process, by rank."""
    states: list[RandomState] = [random_state()]
    return gather_object(states) if accelerator.num_processes > 1 else states


def check_same_step(accelerator: Accelerator, step: int) -> None:
    """Check that all processes resume from the same step: one that finds the newest state damaged takes an older one.

    Raises:
        DataError: they do not.
    """
    steps = gather_object([step]) if accelerator.num_processes > 1 else [step]
    if len(set(steps)) > 1:
        raise DataError(
            f"processes found states of different steps to resume from ({', '.join(map(str, steps))}), one is damaged: "
            f"start over with --no-resume"
        )


def seed_by_rank(accelerator: Accelerator, seed: int) -> None:
    """Let dropout differ between processes, as it does between the parts of a batch; rank 0 keeps its random state."""
    if accelerator.process_index:
        torch.manual_seed(seed + STRIDE * accelerator.process_index)


def broadcast_buffers(accelerator: Accelerator, module: nn.Module) -> None:
    """Copy the module's buffers, such as running statistics, from rank 0 to all processes."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            buffer.copy_(broadcast(buffer.clone()))


def gathered_rows(accelerator: Accelerator, rows: Tensor) -> Tensor:
    """Concatenate the rows [n, D] of all processes, by rank, to [sum of n, D]; n may differ between processes."""
    if accelerator.num_processes == 1:
        return rows
    counts = accelerator.gather(torch.tensor([len(rows)], device=rows.device)).tolist()
    padded = accelerator.gather(accelerator.pad_across_processes(rows))  # [processes * largest n, D]
    return torch.cat([part[:count] for part, count in zip(padded.split(max(counts)), counts, strict=True)])
