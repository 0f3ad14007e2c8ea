"""Check that splitting a pretraining's optimizer step over processes and forward passes keeps its losses unchanged."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.pretraining import Pretraining

MATCHING = "itm"
"""The objective whose mismatched pairs are formed within one forward pass."""


def as_network(module: object) -> nn.Module:
    """A pretraining, or its backbone, under its torch type; raises TypeError if it is not an nn.Module."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"{type(module).__name__} is not an nn.Module")
    return module


def check_cut(name: str, module: Pretraining, objectives: Collection[str], recipe: Recipe, processes: int) -> None:
    """Raise a VlbenchError if a step of the model `name` cannot be split this way.

    objectives: those that are trained. recipe: resolved. processes: the number that share the step.
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
    if accumulation > 1 and has_live_batch_norms(as_network(module)):
        raise VlbenchError(
            f"{name}'s batch norms normalise by the batch of one forward pass, so its pretraining takes one forward "
            f"pass per step and process: leave out train.accumulation, or use more processes"
        )
    if MATCHING in objectives and pairs // parts < 2:
        raise VlbenchError(
            f"{name} learns {MATCHING} from pairs of one forward pass, and {pairs} pairs in {parts} parts leave one "
            f"alone: give a --batch-size of {2 * parts} or more, fewer processes or less train.accumulation"
        )


def has_live_batch_norms(network: nn.Module) -> bool:
    """Whether some of its batch norms normalise by the batch in training mode. Puts the network into training mode."""
    return any(isinstance(part, _BatchNorm) and part.training for part in network.train().modules())
