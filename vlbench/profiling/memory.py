"""Memory by what is allocated, so that a model's figure does not depend on which others were measured before it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlbench.core.profile import Memory
from vlbench.profiling import machine
from vlbench.profiling.flops import mebibytes

_MIB = 2**20


@dataclass
class Added:
    """Bytes that were there beyond those before, at most."""

    peak: int = 0


@contextmanager
def added(device: torch.device) -> Iterator[Added]:
    """The most memory of tensors that is added meanwhile, known when it ends.

    On a GPU the allocator tells. On the CPU the bytes of all tensors that operators make are summed while they live;
    what an operator needs for itself alone is not seen.
    """
    found = Added()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.peak = torch.cuda.max_memory_allocated(device) - before
        return
    with _Live() as live:
        yield found
    found.peak = live.peak


def emptied(device: torch.device) -> int:
    """Bytes that a GPU's allocator holds after it has given back what it only kept; 0 elsewhere."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def told(modules: Sequence[nn.Module], added: Added, reserved: int, device: torch.device) -> Memory:
    """What is said of a model's memory; reserved: what `emptied` gave before the model was there."""
    return Memory(
        weights=mebibytes(modules),
        activations=added.peak / _MIB,
        reserved=(torch.cuda.memory_reserved(device) - reserved) / _MIB if device.type == "cuda" else None,
        host=machine.host_mib("VmHWM") or None,
    )


def free(device: torch.device) -> int | None:
    """Bytes that may still be allocated; None where the platform does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    of_machine = next((line for line in _text("/proc/meminfo").splitlines() if line.startswith("MemAvailable:")), "")
    of_group, used = (_text(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    bounds = [int(of_machine.split()[1]) * 1024] if of_machine else []
    if of_group.isdigit() and used.isdigit():  # a container's, which may be far below the machine's
        bounds.append(int(of_group) - int(used))
    return min(bounds, default=None)


def _text(path: str) -> str:
    """A file of the system's; empty where there is none."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the bytes of storages from the operator that makes them until nothing refers to them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):  # what was there before costs nothing, nor do views of it
            self._known.add(storage)
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._known:
                self._known.add(storage)
                self._grow(storage.nbytes())
                weakref.finalize(storage, self._grow, -storage.nbytes())
        return made

    def _grow(self, number: int) -> None:
        self.bytes += number
        self.peak = max(self.peak, self.bytes)


def _storages(tree: object) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
