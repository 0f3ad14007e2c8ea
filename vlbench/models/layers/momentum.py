"""The parts of momentum contrast: a slowly moving copy of a module, and a queue of past keys."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class MomentumCopy(Generic[Module]):
    """A copy of `source` that follows it at each `update`; no optimizer trains it.

    module: the copy. momentum: in [0, 1). A parameter becomes momentum * its own value + (1 - momentum) * the source's;
    buffers are copied. A momentum of 0 makes the copy equal to its source.
    """

    def __init__(self, source: Module, momentum: float) -> None:
        self.module = copied(source).requires_grad_(False).eval()
        self.momentum = momentum

    def restart(self, source: Module) -> None:
        """Make the copy equal to `source` again."""
        self.module.load_state_dict(source.state_dict())

    @torch.no_grad()
    def update(self, source: Module) -> None:
        """Move the copy one step towards `source`, in place."""
        averaged: list[Tensor] = [*self.module.parameters()]
        torch._foreach_lerp_(averaged, [*source.parameters()], 1.0 - self.momentum)
        for kept, current in zip(self.module.buffers(), source.buffers(), strict=True):
            kept.copy_(current)


class Queue(nn.Module):
    """A first-in, first-out buffer of the last `size` rows of `width` numbers; it is saved with the weights.

    The number of rows that were pushed is counted on the host too, so that no push waits for the device.
    """

    rows: Tensor
    pushed: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, width))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))
        self._pushed = 0
        self.register_load_state_dict_post_hook(_count_again)  # type: ignore[no-untyped-call]

    def filled(self) -> Tensor:
        """The rows that were pushed and are still kept [k, width], in no particular order."""
        return self.rows[: min(self._pushed, len(self.rows))]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Add rows [n, width], replacing the oldest; of more than `size` rows only the last ones are kept."""
        rows = rows.detach()[-len(self.rows) :]
        places = (self._pushed + torch.arange(len(rows), device=rows.device)) % len(self.rows)
        self.rows[places] = rows.to(self.rows)
        self.pushed += len(rows)
        self._pushed += len(rows)


def _count_again(queue: nn.Module, _: object) -> None:
    """Count on the host what a queue has loaded."""
    assert isinstance(queue, Queue)
    queue._pushed = int(queue.pushed)


def copied(source: Module) -> Module:
    """A copy of a module with weights of its own; all else is shared: feature stores and tokenizers are large."""
    machinery = vars(nn.Module()).keys()
    shared = [value for module in source.modules() for name, value in vars(module).items() if name not in machinery]
    return copy.deepcopy(source, {id(value): value for value in shared})
