"""What a spec leaves open, filled in from the cards of model and task; what it asks for in vain, refused."""

from __future__ import annotations

from pathlib import Path

from vlbench import catalog
from vlbench.core.cards import ModelCard, Recipe, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.spec import RunSpec
from vlbench.core.task import Task
from vlbench.data.parallel import spare_processes
from vlbench.engine.capabilities import takes_prompts
from vlbench.engine.options import check_adapters, check_batch_norm, check_placing
from vlbench.engine.weights.files import holds_linear, weights_file
from vlbench.engine.weights.pretrained import PRETRAINED
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
    whole = spec.model_copy(
        update={
            "size": size,
            "checkpoint": checkpoint,
            "train_split": (spec.train_split or task.card.train_split) if trains or spec.num_fewshot else "none",
            "select_on": (spec.select_on or task.card.select_on) if trains else "none",
            "split": spec.split or task.card.report_split,
            "select_limit": spec.select_limit or (SELECTED_ON if trains and task.card.output == "rank" else None),
            "controls": controls,
            "workers": spec.workers if "workers" in spec.model_fields_set or world else spare_processes(),
            "answer_by": by,
            "eval_batch_size": spec.eval_batch_size or (PROMPTS if by or takes_prompts(card, task.card) else PAIRS),
            "train": (PROBE if spec.mode == "probe" else card.recipe(spec.task, size)).merged(spec.train),
        }
    )
    check_adapters(whole, card)
    check_batch_norm(whole)
    check_placing(whole, card)
    return whole


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
