"""What a training will do, counted, and how it goes about it."""

from __future__ import annotations

from dataclasses import dataclass

from vlbench.core.cards import Recipe
from vlbench.engine.training.optimizer import needed


@dataclass(frozen=True)
class Plan:
    """The recipe with nothing left open. accumulation: forward passes of each process per optimizer step."""

    recipe: Recipe
    steps: int
    batch_size: int
    accumulation: int
    evaluate_at: frozenset[int]


def make_plan(recipe: Recipe, examples: int) -> Plan:
    """Count the steps of a recipe over `examples` training examples; `steps` wins over `epochs`."""
    batch_size = int(needed(recipe.batch_size, "batch_size"))
    per_epoch = -(-examples // batch_size)
    steps = recipe.steps or per_epoch * int(needed(recipe.epochs, "epochs"))
    evaluations = recipe.evaluations or max(1, steps // per_epoch)
    at = frozenset(round(steps * (number + 1) / evaluations) for number in range(evaluations))
    return Plan(recipe, steps, batch_size, recipe.accumulation or 1, at)


@dataclass(frozen=True)
class Conduct:
    """How training goes about it, never what is learned.

    workers: processes that prepare batches. save_every: steps between states to go on from. auto_batch: whether forward
    passes are made smaller until they fit into memory. activation_checkpointing: whether what layers gave is computed
    again instead of kept.
    """

    workers: int = 0
    save_every: int = 500
    auto_batch: bool = False
    activation_checkpointing: bool = False
