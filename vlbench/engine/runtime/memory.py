"""Out of memory: find the largest forward pass that fits, and continue with smaller ones where memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from vlbench.core.columns import queries_of
from vlbench.core.errors import ExitCode, VlbenchError, is_out_of_memory
from vlbench.core.examples import Examples
from vlbench.engine.runtime.randomness import random_state, restore_random_state

Result = TypeVar("Result")

HEADROOM = 0.1
"""Share of a GPU's memory that a trial step must leave free: batches differ in size, and memory fragments."""


def out_of_memory(what: str, remedy: str) -> VlbenchError:
    """The error for a lack of memory (exit 9). what: ends the sentence `out of memory ...`."""
    return VlbenchError(f"out of memory {what}: {remedy}", ExitCode.OUT_OF_MEMORY)


def release() -> None:
    """Free unreferenced memory; call it after the stack frames of the failed work are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def within_memory(
    rows: Sequence[int], work: Callable[[Sequence[int]], list[Result]], say: Callable[[str], None], what: str
) -> list[Result]:
    """The results of `work` on the rows, in their order; where memory runs out, on halves of them, and so on.

    work: returns one result per row; has no side effects where it fails. say: receives a message for every split. what:
    names the work in messages, such as `predicting`.

    Raises:
        VlbenchError: exit 9, a single row does not fit.
    """
    try:
        return work(rows)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if len(rows) == 1:
        raise out_of_memory(f"{what} a single example", "use a smaller --size, --dtype bfloat16 or a larger machine")
    release()
    half = (len(rows) + 1) // 2
    say(f"{what}: out of memory with {len(rows)} examples per forward pass, continuing with {half}")
    return within_memory(rows[:half], work, say, what) + within_memory(rows[half:], work, say, what)


def heaviest(examples: Examples, most: int) -> list[int]:
    """The rows of the `most` examples that need the most memory: those with the most images, then the longest texts.

    Examples with an image that no earlier one has come first: a shared image is prepared only once per batch, so a
    batch of distinct images needs more memory.
    """
    costs = [(len(query.images), len(query.text), query.images[:1]) for query in queries_of(examples)]
    order = sorted(range(len(costs)), key=lambda row: (-costs[row][0], -costs[row][1], row))
    used: set[str] = set()
    distinct, shared = list[int](), list[int]()
    for row in order:
        keys = {ref.key for ref in costs[row][2]}
        (shared if keys & used else distinct).append(row)
        used |= keys
    return [*distinct, *shared][:most]


def fits(module: nn.Module, work: Callable[[], None], replicas: int) -> bool:
    """Whether a trial step of `module` fits into memory and leaves room for the optimizer. It changes no state.

    work: a forward and a backward pass. replicas: number of processes, which keep a second copy of the gradients.
    """
    undo = Undo(module)
    device = next(module.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        work()
        return device.type != "cuda" or _peak_share(module, device, replicas) <= (1 - HEADROOM)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        module.zero_grad(set_to_none=True)
        undo()
        release()


def _peak_share(module: nn.Module, device: torch.device, replicas: int) -> float:
    """The peak share of the GPU's memory, with Adam's two moments and the exchanged gradients added."""
    trained = sum(value.numel() * value.element_size() for value in module.parameters() if value.requires_grad)
    used = torch.cuda.max_memory_reserved(device) + trained * (2 + (replicas > 1))
    return used / torch.cuda.get_device_properties(device).total_memory


class Undo:
    """A copy of the random states and of a module's buffers, such as running statistics. Calling it restores both."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.random_state = random_state()
        self.buffers = [buffer.detach().clone() for buffer in module.buffers()]

    @torch.no_grad()
    def __call__(self) -> None:
        for buffer, saved in zip(self.module.buffers(), self.buffers, strict=True):
            buffer.copy_(saved)
        restore_random_state(self.random_state)
