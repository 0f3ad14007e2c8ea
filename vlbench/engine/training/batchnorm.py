"""Batch norms in training: normalised over the batches of all processes, and calibrated running statistics.

Shapes: N rows, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    def forward(ctx: object, addend: Tensor) -> Tensor:
        return _all_reduced(addend)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return _all_reduced(gradients[0])


class CPUSyncBatchNorm(_BatchNorm):
    """What torch's SyncBatchNorm is, for processes on CPUs, where torch and DDP reject it.

    Source: Ioffe and Szegedy 2015; the running variance is the unbiased one, as in torch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise this process's rows [N, C, ...] by the rows of all processes, to the same shape and type."""
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return functional.batch_norm(input, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        dims = [0, *range(2, input.dim())]
        shape = [1, -1, *(1 for _ in dims[1:])]
        count = _all_reduced(torch.tensor(input.numel() / input.shape[1]))
        mean = _summed_with_gradient(input.float().sum(dims)) / count
        centred = input - mean.view(shape)
        variance = _summed_with_gradient(centred.float().square().sum(dims)) / count
        self._update_statistics(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards the batch's mean [C] and variance [C]."""
        running_mean, running_var, batches = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.track_running_stats or running_mean is None or running_var is None or batches is None:
            return
        batches.add_(1)
        factor = 1 / float(batches) if self.momentum is None else self.momentum
        running_mean.lerp_(mean, factor)
        running_var.lerp_(variance, factor)


def synchronise_batch_norms(module: nn.Module, accelerator: Accelerator) -> None:
    """Let all batch norms below `module` normalise by the batches of all processes together, in place."""
    if accelerator.num_processes == 1:
        return
    nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    if accelerator.device.type == "cpu":  # torch's conversion knows only its own class
        for part in module.modules():
            if isinstance(part, nn.SyncBatchNorm):
                part.__class__ = CPUSyncBatchNorm  # type: ignore[assignment]


def check_rows(blocks: Sequence[Sequence[int]], processes: int) -> None:
    """Raise a VlbenchError if some step has fewer rows than processes: a stand-in row would count in the statistics."""
    fewest = min(map(len, blocks))
    if fewest < processes:
        raise VlbenchError(
            f"batch norms that normalise by the batch need a row of every optimizer step on each of {processes} "
            f"processes, and the smallest step has {fewest}: start fewer processes, or give another --batch-size"
        )


def have_initial_statistics(batch_norms: Sequence[nn.Module]) -> bool:
    """Whether there are batch norms with running statistics, and all of them still have the initial values 0 and 1."""
    means = [norm.running_mean for norm in batch_norms if isinstance(norm.running_mean, Tensor)]
    variances = [norm.running_var for norm in batch_norms if isinstance(norm.running_var, Tensor)]
    return bool(means) and not any(map(torch.any, means)) and all(bool((value == 1).all()) for value in variances)


@torch.no_grad()
def calibrate_batch_norms(learner: Learner, batches: Iterable[Batch]) -> None:
    """Set the running statistics of all batch norms to their mean over the batches; nothing else changes."""
    saved = random_state()
    norms = [norm for norm in learner.batch_norms() if isinstance(norm, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    learner.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for batch in batches:
        learner(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    learner.train()
    restore_random_state(saved)


def _summed_with_gradient(addend: Tensor) -> Tensor:
    """The sum of the tensors [C] of all processes, through which gradients flow."""
    total: Tensor = _Sum.apply(addend)  # type: ignore[no-untyped-call]
    return total


def _all_reduced(addend: Tensor) -> Tensor:
    """The sum of the tensors of all processes."""
    total = addend.clone()
    distributed.all_reduce(total)
    return total
