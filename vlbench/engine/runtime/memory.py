"""Out of memory: what it looks like, how large a forward pass may be, and how to go on with smaller ones."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from vlbench.core.errors import ExitCode, VlbenchError, is_out_of_memory
from vlbench.core.examples import Example
from vlbench.engine.runtime.randomness import random_state, restore_random_state

Found = TypeVar("Found")

HEADROOM = 0.1
"""Share of a GPU's memory that a trial forward pass must leave free: batches differ, and fragments add up."""


def out_of_memory(what: str, remedy: str) -> VlbenchError:
    """The sentence with its exit code, 9."""
    return VlbenchError(f"out of memory {what}: {remedy}", ExitCode.OUT_OF_MEMORY)


def release() -> None:
    """Give back what nothing refers to; to be called after the failed work's frames are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def within_memory(
    rows: Sequence[int], work: Callable[[Sequence[int]], list[Found]], say: Callable[[str], None], what: str
) -> list[Found]:
    """What `work` makes of the rows, in their order; of halves of them, and so on, where memory does not suffice.

    Args:
        rows: of one batch.
        work: makes one thing per row, without leaving anything behind where it fails.
        say: told of every cut.
        what: names the work in sentences, e.g. `predicting`.

    Raises:
        VlbenchError: exit 9, a single row is too much.
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
    say(f"{what}: out of memory with {len(rows)} examples per forward, going on with {half}")
    return within_memory(rows[:half], work, say, what) + within_memory(rows[half:], work, say, what)


def heaviest(examples: Sequence[Example[Any]], most: int) -> list[int]:
    """Rows of at most so many examples with the most pictures and then the longest texts, each picture once if it can.

    A picture that several examples share is prepared once for all of them, so a batch of distinct ones costs more.
    """
    costs = [(len(one.query.images), len(one.query.text), one.query.images[:1]) for one in examples]
    order = sorted(range(len(costs)), key=lambda row: (-costs[row][0], -costs[row][1], row))
    seen: set[str] = set()
    first, rest = list[int](), list[int]()
    for row in order:
        keys = {ref.key for ref in costs[row][2]}
        (rest if keys & seen else first).append(row)
        seen |= keys
    return [*first, *rest][:most]


def fits(module: nn.Module, work: Callable[[], None], replicas: int) -> bool:
    """Whether a trial step of `module` passes and leaves headroom for the optimizer. It leaves no trace.

    work: a forward and a backward pass. replicas: processes, which keep gradients once more to exchange them.
    """
    undo = Undo(module)
    device = next(module.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        work()
        return device.type != "cuda" or _peak(module, device, replicas) <= (1 - HEADROOM)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        module.zero_grad(set_to_none=True)
        undo()
        release()


def _peak(module: nn.Module, device: torch.device, replicas: int) -> float:
    """The share of the GPU that was used at most, with Adam's two moments and the exchanged gradients to come."""
    trained = sum(one.numel() * one.element_size() for one in module.parameters() if one.requires_grad)
    used = torch.cuda.max_memory_reserved(device) + trained * (2 + (replicas > 1))
    return used / torch.cuda.get_device_properties(device).total_memory


class Undo:
    """Called, it puts chance and buffers (running statistics, dictionaries) back to what they were when it was made."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.chance = random_state()
        self.buffers = [buffer.detach().clone() for buffer in module.buffers()]

    @torch.no_grad()
    def __call__(self) -> None:
        for buffer, kept in zip(self.module.buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
        restore_random_state(self.chance)
