"""What a spec leaves open, filled in from the cards of model and task; what it asks for in vain, refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlbench import catalog
from vlbench.core.cards import ModelCard, Recipe, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.spec import RunSpec
from vlbench.core.splits import NONE, Splits, joined, split_tuple
from vlbench.core.task import Task
from vlbench.data.parallel import spare_processes
from vlbench.engine.capabilities import takes_prompts
from vlbench.engine.options import check_adapters, check_batch_norm, check_placing, check_scales
from vlbench.engine.weights.files import PRETRAINED, holds_linear, weights_file
from vlbench.engine.writing import answer_by, check_shots

PAIRS, PROMPTS = 256, 8
"""Examples per forward: of an encoder, and of a model that writes, which is large and sees hundreds of tokens each."""
SELECTED_ON = 1000
"""Pictures of a gallery that weights are selected on, unless told otherwise."""
PROBE = Recipe(
    optimizer="adamw",
    lr=1e-2,
    betas=(0.9, 0.999),
    weight_decay=0.0,
    warmup=0.0,
    epochs=50,
    batch_size=256,
    evaluations=10,
    batches="shuffled",
)
"""For a linear head alone, over features brought to mean 0 and deviation 1; whatever the model."""


def resolved(spec: RunSpec, task: Task, card: ModelCard) -> RunSpec:
    """The spec with every default written out, so that the record says what ran."""
    world, trains = task.source == "world", spec.mode in ("finetune", "probe")
    _check_rerank(spec, task.card, card)
    check_shots(spec, task.card, card)
    size = spec.size or (next(iter(card.sizes)) if len(card.sizes) == 1 else "tiny" if world else "base")
    catalog.check_size(card, size)
    checkpoint = spec.checkpoint or _default_checkpoint(card, size, world)
    by_head = spec.mode == "eval" or (spec.mode == "zero-shot" and task.card.output == "rank" and not card.pretrained)
    if by_head and checkpoint == "none":
        raise VlbenchError(
            f"--mode {spec.mode} needs --checkpoint with trained weights, and there are none: name a run or a file"
        )
    blind = world and trains and task.card.output != "rank"  # what a ranking is worth without sight is known: chance
    controls = spec.controls if spec.controls is not None else (("blind",) if blind else ())
    if controls and task.card.output == "rank":
        raise VlbenchError(
            f"--controls {','.join(controls)} is not for {task.card.name}: what a ranking is worth without sight is "
            f"chance, which the table shows; leave it out"
        )
    if controls and not trains:
        raise VlbenchError(
            f"--controls {','.join(controls)} are trained, and --mode {spec.mode} trains nothing: leave them out"
        )
    probed = (
        spec.mode == "eval"
        and checkpoint not in (PRETRAINED, "shipped")
        and holds_linear(weights_file(Path(checkpoint)))
    )
    by = answer_by(spec, task.card, card, probed)
    recipe = (PROBE if spec.mode == "probe" else card.recipe(spec.task, size)).merged(spec.train)
    trained_on = _train_split(spec, task.card, recipe) if trains or spec.num_fewshot else NONE
    whole = spec.model_copy(
        update={
            "size": size,
            "checkpoint": checkpoint,
            "train_split": trained_on,
            "select_on": _select_on(spec, task.card, split_tuple(trained_on)) if trains else NONE,
            "split": spec.split or task.card.report_split,
            "select_limit": spec.select_limit or (SELECTED_ON if trains and task.card.output == "rank" else None),
            "controls": controls,
            "workers": spec.workers if "workers" in spec.model_fields_set or world else spare_processes(),
            "answer_by": by,
            "eval_batch_size": spec.eval_batch_size or (PROMPTS if by or takes_prompts(card, task.card) else PAIRS),
            "train": recipe.model_copy(update={"train_splits": None}),
        }
    )
    check_adapters(whole, card)
    check_batch_norm(whole)
    check_placing(whole, card)
    check_scales(whole)
    return whole


def _train_split(spec: RunSpec, task: TaskCard, recipe: Recipe) -> Splits:
    """The splits to train on, or to draw shots from: the flag's, else the recipe's, else the task card's.

    recipe: the card's, over it `spec.train`; shots are drawn from the card's train split whatever it was finetuned on.

    Raises:
        VlbenchError: the flag and `--set train.train_splits` name splits both.
    """
    if spec.train_split and spec.train.train_splits:
        raise VlbenchError(
            f"--train-split {joined(spec.train_split)} and train.train_splits {joined(spec.train.train_splits)} say "
            f"the same thing twice: give one of them"
        )
    named = recipe.train_splits if spec.mode in ("finetune", "probe") else spec.train.train_splits
    if spec.train_split or named is None:
        return spec.train_split or task.train_split
    return named[0] if len(named) == 1 else named


def _select_on(spec: RunSpec, task: TaskCard, trained_on: Sequence[str]) -> str:
    """The split to select on: the flag's, else the task card's, or none where a recipe also trains on that one.

    Papers that train on the selection split take the last checkpoint. Splits that the user named are never corrected
    silently.
    """
    if spec.select_on or spec.train_split or spec.train.train_splits:
        return spec.select_on or task.select_on
    holding = {task.select_on, *task.larger_splits(task.select_on)}
    return NONE if holding & set(trained_on) else task.select_on


def _default_checkpoint(card: ModelCard, size: str, world: bool) -> str:
    if card.pretrained:
        return PRETRAINED
    return "shipped" if world and catalog.shipped_weights(card.name, size) else "none"


def _check_rerank(spec: RunSpec, task: TaskCard, card: ModelCard) -> None:
    """A shortlist is of a gallery, and needs a model that embeds pictures and texts apart and looks at pairs too."""
    if spec.rerank_k is not None and (task.output != "rank" or card.ranks_by == "dual" or not card.embeds):
        able = [
            name
            for name in catalog.model_folders()
            if (one := catalog.model_card(name)).embeds and one.ranks_by == "cross"
        ]
        raise VlbenchError(
            f"--rerank-k {spec.rerank_k} is for retrieval by a model that embeds and looks at pairs "
            f"({', '.join(able)}), not for {card.name} on {task.name}: leave it out"
        )
