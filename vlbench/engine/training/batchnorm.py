"""Batch norms that normalise by the batch: over all processes together, so that a loss is that of the whole step.

Shapes: N rows, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from vlbench.core.batch import Batch
from vlbench.core.errors import VlbenchError
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.randomness import random_state, restore_random_state


class _Sum(torch.autograd.Function):
    """The sum over processes, with gradient: each process's loss depends on every process's addend."""

    @staticmethod
    def forward(ctx: Any, addend: Tensor) -> Tensor:
        return _summed(addend)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


class CPUSyncBatchNorm(_BatchNorm):
    """What torch's SyncBatchNorm is, for processes on CPUs, where torch and DDP reject theirs.

    Source: Ioffe and Szegedy 2015; the running variance is the unbiased one, as in torch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Rows [N, C, ...] of this process -> the same shape, normalised by the rows of all processes."""
        if not self.training:
            mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
            return functional.batch_norm(input, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        dims = [0, *range(2, input.dim())]
        shape = [1, -1, *(1 for _ in dims[1:])]
        count = _summed(torch.tensor(input.numel() / input.shape[1]))
        mean = _summed_with_gradient(input.float().sum(dims)) / count
        centred = input - mean.view(shape)
        variance = _summed_with_gradient(centred.float().square().sum(dims)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        tracked = cast(Tensor, self.num_batches_tracked).add_(1)
        factor = 1 / float(tracked) if self.momentum is None else self.momentum
        cast(Tensor, self.running_mean).lerp_(mean, factor)
        cast(Tensor, self.running_var).lerp_(variance, factor)


def synchronise_batch_norms(module: nn.Module, accelerator: Accelerator) -> None:
    """Let all batch norms below `module` normalise by the batches of all processes together, in place."""
    if accelerator.num_processes == 1:
        return
    nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    if accelerator.device.type == "cpu":  # the conversion knows torch's own class alone
        for one in module.modules():
            if isinstance(one, nn.SyncBatchNorm):
                cast(nn.Module, one).__class__ = CPUSyncBatchNorm


def check_rows(blocks: Sequence[Sequence[int]], processes: int) -> None:
    """Raises VlbenchError where a step has no row for some process, whose stand-in the statistics would count."""
    least = min(map(len, blocks))
    if least < processes:
        raise VlbenchError(
            f"batch norms that normalise by the batch need a row of every optimizer step on each of {processes} "
            f"processes, and the smallest step has {least}: start fewer processes, or give another --batch-size"
        )


def never_ran(batch_norms: Sequence[nn.Module]) -> bool:
    """Whether there are batch norms and all still have the running statistics that they are made with."""
    tracked = [(one.running_mean, one.running_var) for one in batch_norms if isinstance(one.running_mean, Tensor)]
    return bool(tracked) and all(
        not bool(mean.any()) and bool((cast(Tensor, variance) == 1).all()) for mean, variance in tracked
    )


@torch.no_grad()
def calibrate_batch_norms(learner: Learner, batches: Iterable[Batch]) -> None:
    """Set the running statistics of all batch norms to their mean over the batches; nothing else changes."""
    before, norms = random_state(), cast("list[_BatchNorm]", learner.batch_norms())
    momenta = [one.momentum for one in norms]
    learner.eval()
    for one in norms:
        one.reset_running_stats()
        one.momentum = None  # the mean over all batches
        one.train()
    for batch in batches:
        learner(batch)
    for one, momentum in zip(norms, momenta, strict=True):
        one.momentum = momentum
    learner.train()
    restore_random_state(before)


def _summed_with_gradient(addend: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(addend)  # type: ignore[no-untyped-call]
    return total


def _summed(addend: Tensor) -> Tensor:
    total = addend.clone()
    distributed.all_reduce(total)
    return total
