"""A slowly moving copy of a module: the exponential moving average of its weights."""

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

    @torch.no_grad()
    def update(self, source: Module) -> None:
        """Move the copy one step towards `source`, in place."""
        averaged: list[Tensor] = [*self.module.parameters()]
        torch._foreach_lerp_(averaged, [*source.parameters()], 1.0 - self.momentum)
        for kept, current in zip(self.module.buffers(), source.buffers(), strict=True):
            kept.copy_(current)


def _copied(source: Module) -> Module:
    """Copy the weights. All else that modules hold is shared, because feature stores and tokenizers are not small."""
    machinery = vars(nn.Module()).keys()
    shared = [value for module in source.modules() for name, value in vars(module).items() if name not in machinery]
    return copy.deepcopy(source, {id(value): value for value in shared})
