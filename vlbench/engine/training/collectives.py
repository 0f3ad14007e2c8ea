"""What processes do together in a training step, whatever is trained."""

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
"""Between the seeds of two processes; a prime, so that neighbouring runs do not share theirs."""


def backward(
    accelerator: Accelerator, wrapped: nn.Module, parts: Iterable[Input], count: int, loss: Callable[[Input], Tensor]
) -> None:
    """Add up the gradients of the losses of `count` parts; processes meet in the last one.

    Gradients end up as those of the sum over all processes' parts, of which DDP by itself would take the mean.
    """
    for number, part in enumerate(parts, start=1):
        with nullcontext() if number == count else accelerator.no_sync(wrapped):
            with accelerator.autocast():
                value = loss(part)
            accelerator.backward(value * accelerator.num_processes)


def total(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """Each value summed over the processes, the same on all of them."""
    if accelerator.num_processes == 1:
        return list(values)
    summed = accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum")
    return [float(value) for value in summed]


def all_chance(accelerator: Accelerator) -> list[RandomState]:
    """The states of chance of every process, in their order."""
    states: list[RandomState] = [random_state()]
    return gather_object(states) if accelerator.num_processes > 1 else states


def check_alike(accelerator: Accelerator, step: int) -> None:
    """All processes must go on from the same step: one that found the newest state damaged went further back.

    Raises:
        DataError: they do not.
    """
    steps = gather_object([step]) if accelerator.num_processes > 1 else [step]
    if len(set(steps)) > 1:
        raise DataError(
            f"processes found states of different steps to go on from ({', '.join(map(str, steps))}), one is damaged: "
            f"start over with --no-resume"
        )


def draw_apart(accelerator: Accelerator, seed: int) -> None:
    """Let dropout differ between processes, as it does between the parts of a batch; the first one draws on."""
    if accelerator.process_index:
        torch.manual_seed(seed + STRIDE * accelerator.process_index)


def same_buffers(accelerator: Accelerator, module: nn.Module) -> None:
    """Give every process the first one's running statistics, which each gathered from what it saw itself."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            buffer.copy_(broadcast(buffer.clone()))


def gathered_rows(accelerator: Accelerator, rows: Tensor) -> Tensor:
    """Rows [n, width] of every process, [sum of n, width], one process after the other; n may differ."""
    if accelerator.num_processes == 1:
        return rows
    counts = accelerator.gather(torch.tensor([len(rows)], device=rows.device)).tolist()
    padded = accelerator.gather(accelerator.pad_across_processes(rows))  # [processes * most, width]
    return torch.cat([part[:count] for part, count in zip(padded.split(max(counts)), counts, strict=True)])
