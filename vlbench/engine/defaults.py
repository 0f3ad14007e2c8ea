"""The defaults of a spec, filled in from the cards of model and task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlbench import catalog
from vlbench.core.cards import ModelCard, Recipe, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.modes import MODES
from vlbench.core.spec import ResolvedSpec, RunSpec, resolve
from vlbench.core.splits import NONE, Splits, joined, split_tuple
from vlbench.core.task import Task
from vlbench.data.parallel import spare_processes
from vlbench.engine import capabilities
from vlbench.engine.capabilities import EvaluatorKind, Unsupported, evaluator_for
from vlbench.engine.weights.files import PRETRAINED, holds_linear, weights_file
from vlbench.heads.kinds import takes_prompts

PAIRS, PROMPTS = 256, 8
"""Examples per forward pass: of an encoder, and of a generative model, which is larger and takes long prompts."""
SELECTED_ON = 1000
"""The default number of a gallery's images to select weights on."""
PROBE = Recipe(
    optimizer="adamw", lr=1e-2, betas=(0.9, 0.999), weight_decay=0.0, warmup=0.0, epochs=50, batch_size=256,
    evaluations=10, batches="shuffled",
)  # fmt: skip
"""The recipe of a probe, over features standardised to mean 0 and deviation 1; the same for every model."""


def resolved(spec: RunSpec, task: Task, card: ModelCard) -> tuple[ResolvedSpec, EvaluatorKind]:
    """The spec with every default filled in, for the record, and how the model answers.

    Raises:
        VlbenchError: an option is unsupported, or two of them contradict each other.
    """
    world, facts = task.source == "world", MODES[spec.mode]
    capabilities.check_before_data(spec, card, task.card)
    size = size_of(spec, card, world)
    catalog.check_size(card, size)
    checkpoint = spec.checkpoint or _default_checkpoint(card, size, world)
    kind = supported(evaluator_for(spec, card, task.card))
    capabilities.check_checkpoint(spec, card, kind, checkpoint)
    if facts.loads_head and _holds_linear(checkpoint):
        kind = supported(evaluator_for(spec, card, task.card, linear_head=True))
    # An image-blind ranking has the recall of a random one, which is known.
    blind = world and facts.trains and not kind.ranks_gallery
    controls = spec.controls if spec.controls is not None else (("blind",) if blind else ())
    capabilities.check_controls(spec, task.card, kind, controls)
    answer_by = capabilities.answer_by(spec, card, task.card, kind)
    recipe = (PROBE if facts.trains_head_only else card.recipe(spec.task, size)).merged(spec.train)
    trained_on = _train_split(spec, task.card, recipe) if facts.trains or spec.num_fewshot else NONE
    whole = resolve(
        spec,
        size=size,
        checkpoint=checkpoint,
        train_split=trained_on,
        select_on=_select_on(spec, task.card, split_tuple(trained_on)) if facts.trains else NONE,
        split=spec.split or task.card.report_split,
        select_limit=spec.select_limit or (SELECTED_ON if facts.trains and kind.ranks_gallery else None),
        controls=controls,
        answer_by=answer_by,
        workers=workers_of(spec, world),
        eval_batch_size=spec.eval_batch_size or (PROMPTS if answer_by or takes_prompts(card, task.card) else PAIRS),
        train=recipe.model_copy(update={"train_splits": None}),
    )
    capabilities.check_resolved(whole, card)
    capabilities.check_fsdp(whole, card, task.card)
    return whole, kind


def size_of(spec: RunSpec, card: ModelCard, world: bool) -> str:
    """The model's size: the flag's, else the only one, else tiny on synthetic data and base on real data."""
    return spec.size or (next(iter(card.sizes)) if len(card.sizes) == 1 else "tiny" if world else "base")


def workers_of(spec: RunSpec, world: bool) -> int:
    """The number of processes that prepare batches."""
    return spec.workers if "workers" in spec.model_fields_set or world else spare_processes()


def supported(kind: EvaluatorKind | Unsupported) -> EvaluatorKind:
    """How the model answers; a VlbenchError with the reason if it cannot."""
    if isinstance(kind, Unsupported):
        raise VlbenchError(kind.reason, kind.exit_code)
    return kind


def _holds_linear(checkpoint: str) -> bool:
    """Whether a checkpoint that the user names holds a linear head."""
    return checkpoint not in (PRETRAINED, "shipped") and holds_linear(weights_file(Path(checkpoint)))


def _train_split(spec: RunSpec, task: TaskCard, recipe: Recipe) -> Splits:
    """The splits to train on, or to draw shots from: the flag's, else the recipe's, else the task card's.

    recipe: the card's, with `spec.train` over it; shots are never drawn from the splits of the card's recipe.

    Raises:
        VlbenchError: both the flag and `--set train.train_splits` name splits.
    """
    if spec.train_split and spec.train.train_splits:
        raise VlbenchError(
            f"--train-split {joined(spec.train_split)} and train.train_splits {joined(spec.train.train_splits)} say "
            f"the same thing twice: give one of them"
        )
    named = recipe.train_splits if MODES[spec.mode].trains else spec.train.train_splits
    if spec.train_split or named is None:
        return spec.train_split or task.train_split
    return named[0] if len(named) == 1 else named


def _select_on(spec: RunSpec, task: TaskCard, trained_on: Sequence[str]) -> str:
    """The split to select on: the flag's, else the task card's, or none where a recipe trains on it.

    Papers that train on the selection split take the last checkpoint. Splits that the user names are never changed.
    """
    if spec.select_on or spec.train_split or spec.train.train_splits:
        return spec.select_on or task.select_on
    holding = {task.select_on, *task.larger_splits(task.select_on)}
    return NONE if holding & set(trained_on) else task.select_on


def _default_checkpoint(card: ModelCard, size: str, world: bool) -> str:
    if card.pretrained:
        return PRETRAINED
    return "shipped" if world and catalog.shipped_weights(card.name, size) else "none"
