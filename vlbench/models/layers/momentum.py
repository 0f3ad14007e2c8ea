"""A slowly moving copy of a module, and a queue of the keys it gave: what momentum contrast is made of."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class MomentumCopy(Generic[Module]):
    """`module`, which starts as `source` does and follows it at each `update`; no optimizer trains it.

    A parameter becomes momentum * its own + (1 - momentum) * the source's; buffers are copied. momentum is in
    [0, 1): 0 makes the copy equal to its source.
    """

    def __init__(self, source: Module, momentum: float) -> None:
        self.module = _copied(source).requires_grad_(False).eval()
        self.momentum = momentum

    def restart(self, source: Module) -> None:
        """Make the copy equal to `source` again, as after weights were loaded into it."""
        self.module.load_state_dict(source.state_dict())

    @torch.no_grad()
    def update(self, source: Module) -> None:
        """Move the copy one step towards `source`, in place."""
        averaged: list[Tensor] = [*self.module.parameters()]
        torch._foreach_lerp_(averaged, [*source.parameters()], 1.0 - self.momentum)
        for kept, current in zip(self.module.buffers(), source.buffers(), strict=True):
            kept.copy_(current)


class Queue(nn.Module):
    """First in, first out: the last `size` rows of `width` numbers that were pushed. It travels with the weights."""

    rows: Tensor
    pushed: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, width))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def filled(self) -> Tensor:
        """The rows that are there [k, width], in no particular order."""
        return self.rows[: min(int(self.pushed), len(self.rows))]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Take rows [n, width] in, the oldest going out; of more than `size` rows the last ones stay."""
        rows = rows.detach()[-len(self.rows) :]
        places = (int(self.pushed) + torch.arange(len(rows), device=rows.device)) % len(self.rows)
        self.rows[places] = rows.to(self.rows)
        self.pushed += len(rows)


def _copied(source: Module) -> Module:
    """Copy the weights. All else that modules hold is shared, because feature stores and tokenizers are not small."""
    machinery = vars(nn.Module()).keys()
    shared = [value for module in source.modules() for name, value in vars(module).items() if name not in machinery]
    return copy.deepcopy(source, {id(value): value for value in shared})
