"""What a training will do, counted, and how it goes about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlbench.core.cards import Recipe
from vlbench.core.examples import Examples
from vlbench.engine.batching.batches import epoch_blocks, related, sequential_blocks
from vlbench.engine.training.optimizer import needed


@dataclass(frozen=True)
class Plan:
    """The recipe with nothing left open. accumulation: forward passes of each process per optimizer step."""

    recipe: Recipe
    steps: int
    batch_size: int
    accumulation: int
    evaluate_at: frozenset[int]


def training_units(recipe: Recipe, examples: Examples) -> list[list[int]]:
    """The rows that stay in one batch: each by itself or, in `related` batches, with those that belong to it."""
    if recipe.batches == "related":
        return related(examples, int(needed(recipe.batch_size, "batch_size")))
    return sequential_blocks(len(examples), 1)


def make_plan(recipe: Recipe, units: Sequence[Sequence[int]], seed: int, images: Sequence[str] | None = None) -> Plan:
    """Count the steps of a recipe; `steps` wins over `epochs`.

    Args:
        units: rows of the training examples that stay in one batch, as `training_units` has them. Where they leave
            batches partly empty, an epoch has more batches, and not each the same number.
        seed: that batches are drawn with.
        images: as `Head.contrasted_images` gives them.
    """
    batch_size = int(needed(recipe.batch_size, "batch_size"))
    if recipe.steps:
        steps, epochs = recipe.steps, recipe.steps // _batches(units, batch_size, seed, 0, images)
    else:
        epochs = int(needed(recipe.epochs, "epochs"))
        steps = sum(_batches(units, batch_size, seed, epoch, images) for epoch in range(epochs))
    evaluations = recipe.evaluations or max(1, epochs)
    at = frozenset(max(1, round(steps * (number + 1) / evaluations)) for number in range(evaluations))
    return Plan(recipe, steps, batch_size, recipe.accumulation or 1, at)


def _batches(
    units: Sequence[Sequence[int]], batch_size: int, seed: int, epoch: int, images: Sequence[str] | None
) -> int:
    """How many batches an epoch has."""
    if images is None and all(len(unit) == 1 for unit in units):
        return -(-len(units) // batch_size)  # as drawing them gives, without the work
    return len(epoch_blocks(units, batch_size, seed, epoch, images))


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
