"""Which cuts of a pretraining's optimizer step, into processes and forward passes, leave its losses what they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.pretraining import Pretraining

MATCHING = "itm"
"""The objective whose mismatched pairs are formed within one forward pass."""


def check_cut(name: str, module: Pretraining, objectives: Collection[str], recipe: Recipe, processes: int) -> None:
    """Raises VlbenchError where a step cannot be cut so.

    Args:
        name: of the model.
        module: its pretraining.
        objectives: those that are trained.
        recipe: resolved.
        processes: that share the step.
    """
    accumulation = recipe.accumulation or 1
    parts, pairs = accumulation * processes, recipe.batch_size or 1
    if parts == 1:
        return
    if not module.divisible:
        raise VlbenchError(
            f"{name}'s dictionary moves in every forward pass, so its pretraining takes one process and one "
            f"forward pass per step: leave out --num-processes and train.accumulation"
        )
    if accumulation > 1 and has_live_batch_norms(module):
        raise VlbenchError(
            f"{name}'s batch norms normalise by the batch of one forward pass, so its pretraining takes one forward "
            f"pass per step and process: leave out train.accumulation, or use more processes"
        )
    if MATCHING in objectives and pairs // parts < 2:
        raise VlbenchError(
            f"{name} learns {MATCHING} from pairs of one forward pass, and {pairs} pairs in {parts} parts leave one "
            f"alone: give a --batch-size of {2 * parts} or more, fewer processes or less train.accumulation"
        )


def has_live_batch_norms(module: Pretraining) -> bool:
    """Whether batch norms of it normalise by the batch while it is trained."""
    network = cast(nn.Module, module).train()
    return any(isinstance(one, _BatchNorm) and one.training for one in network.modules())
