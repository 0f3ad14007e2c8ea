"""The plan of a training (steps, batch size, evaluations), and how it is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlbench.core.cards import Recipe
from vlbench.core.examples import Examples
from vlbench.engine.batching.batches import epoch_blocks, related_rows, sequential_blocks
from vlbench.engine.training.optimizer import needed


@dataclass(frozen=True)
class Plan:
    """The recipe with the number of steps counted.

    steps: optimizer steps. batch_size: examples per step. accumulation: forward passes per step and process.
    evaluate_at: the steps after which weights are evaluated for selection.
    """

    recipe: Recipe
    steps: int
    batch_size: int
    accumulation: int
    evaluate_at: frozenset[int]


def training_units(recipe: Recipe, examples: Examples) -> list[list[int]]:
    """The rows that must stay in one batch: single rows or, with `related` batches, groups of related examples."""
    if recipe.batches == "related":
        return related_rows(examples, int(needed(recipe.batch_size, "batch_size")))
    return sequential_blocks(len(examples), 1)


def make_plan(recipe: Recipe, units: Sequence[Sequence[int]], seed: int, images: Sequence[str] | None = None) -> Plan:
    """Count the steps of a recipe; `steps` takes precedence over `epochs`.

    units: as `training_units` returns them; where they leave batches partly empty, an epoch has more batches, and
    epochs may differ in their number. images: as `Head.contrasted_images` returns them.

    Raises:
        VlbenchError: the recipe lacks a batch size or a number of epochs.
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
    """The number of batches of an epoch."""
    if images is None and all(len(unit) == 1 for unit in units):
        return -(-len(units) // batch_size)  # the same number as drawing them gives, without the work
    return len(epoch_blocks(units, batch_size, seed, epoch, images))


@dataclass(frozen=True)
class Conduct:
    """How training is carried out; none of it changes what is learned.

    workers: processes that prepare batches. save_every: steps between saved states. auto_batch: whether forward passes
    are made smaller until they fit into memory. activation_checkpointing: whether activations are recomputed in the
    backward pass instead of kept. fsdp: whether weights, gradients and optimizer state are sharded over the processes.
    """

    workers: int = 0
    save_every: int = 500
    auto_batch: bool = False
    activation_checkpointing: bool = False
    fsdp: bool = False
