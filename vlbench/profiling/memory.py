"""Memory that a model allocates, independent of the models that were measured before it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlbench.core.cores import free_memory
from vlbench.core.profile import Memory
from vlbench.profiling import machine
from vlbench.profiling.flops import module_mib

_MIB = 2**20


@dataclass
class AddedMemory:
    """The most bytes of tensors that existed at once beyond those that existed before."""

    peak: int = 0


@contextmanager
def track_added_memory(device: torch.device) -> Iterator[AddedMemory]:
    """Track the memory of tensors that are made inside the block; `peak` is set when the block ends.

    On a GPU the allocator counts. On the CPU the bytes of all tensors that operators return are summed while they
    exist; working memory inside an operator is not seen.
    """
    added = AddedMemory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield added
        added.peak = torch.cuda.max_memory_allocated(device) - before
        return
    with _LiveStorages() as live:
        yield added
    added.peak = live.peak


def empty_allocator(device: torch.device) -> int:
    """Release what a GPU's allocator only caches; returns the bytes it still reserves, 0 on other devices."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def memory_record(modules: Sequence[nn.Module], added: AddedMemory, reserved: int, device: torch.device) -> Memory:
    """The memory of a model as the record has it; reserved: what `empty_allocator` returned before it was built."""
    return Memory(
        weights=module_mib(modules),
        activations=added.peak / _MIB,
        reserved=(torch.cuda.memory_reserved(device) - reserved) / _MIB if device.type == "cuda" else None,
        host=machine.process_mib("VmHWM") or None,
    )


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be allocated; None where the platform does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A sum of the bytes of tensor storages, each from the operator that makes it until nothing refers to it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        for storage in _storages((args, kwargs)):  # storages from before cost nothing, nor do views of them
            self._known.add(storage)
        result: object = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage not in self._known:
                self._known.add(storage)
                self._grow(storage.nbytes())
                weakref.finalize(storage, self._grow, -storage.nbytes())
        return result

    def _grow(self, number: int) -> None:
        self.bytes += number
        self.peak = max(self.peak, self.bytes)


def _storages(tree: object) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
