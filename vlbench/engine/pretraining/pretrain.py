"""Pretrain a backbone on pictures and captions: seeded, resumable, safetensors out with a card that says how."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import cast

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from vlbench import __version__, catalog
from vlbench.core.accelerate_env import remove_variables, removed_message
from vlbench.core.backbone import Fitted
from vlbench.core.cards import ModelCard, Recipe
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.pretraining import LearnsAnswers
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.data.cache.folder import atomic_write
from vlbench.data.resources import Loading
from vlbench.data.text.answers import ANSWERS_FILE, write_answers
from vlbench.engine.pretraining.cut import check_cut
from vlbench.engine.pretraining.folder import (
    CAPTIONS,
    CARD,
    SPEC,
    WEIGHTS,
    claim,
    command_of,
    last_losses,
    made,
)
from vlbench.engine.pretraining.initial import find_initial, load_initial
from vlbench.engine.pretraining.loop import Loop, Work, planned
from vlbench.engine.pretraining.pairs import Pairs, load_pairs
from vlbench.engine.resources import Material, make_resources, unique_refs
from vlbench.engine.runtime.environment import make_accelerator, seed_everything
from vlbench.engine.runtime.interrupt import Interrupt, Stoppable
from vlbench.engine.runtime.ranks import Ranks, join
from vlbench.engine.runtime.trackers import check_trackers, tracked
from vlbench.engine.training.atomic_folder import synchronise
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.records.lock import run_lock

RECIPE = "pretrain"
"""Its name among a model card's recipes."""
NOT_USED = (
    "ema", "augment", "short_side", "long_side", "evaluations", "head_lr",
    "rank_loss", "negative_texts", "negative_images", "margin", "lora_rank", "train_splits",
    "batch_norm",
)  # fmt: skip
"""Fields of a recipe that are for finetuning alone."""


def pretrain(spec: PretrainSpec, progress: Progress) -> Path:
    """Pretrain, or go on with it, and write weights, tokenizer and card; the folder that holds them.

    Raises:
        VlbenchError: a model without pretraining, objectives it does not have, or a folder that holds another one.
        Interrupted: asked to stop; the state is saved, and the same spec goes on from there.
    """
    removed = remove_variables(spec.device)
    ranks = join(spec.device, spec.num_processes)
    if removed and ranks.is_main:
        progress.say(removed_message(removed))
    card, size, spec, command, examples = ranks.together(lambda: _resolved(spec, progress))
    folder = made(spec.output_path / f"{card.name}-{size}")
    with run_lock(folder) if ranks.is_main else nullcontext(), Interrupt() as interrupt:
        work = _begin(card, size, spec, command, examples, folder, progress, interrupt, ranks)
        ranks.together(lambda: _claim(work))
        if (folder / WEIGHTS).is_file():
            progress.say("already done: these are the weights of that pretraining")
        else:
            with tracked(work.spec, folder, f"{card.name}-{size} pretrained", ranks) as trackers:
                Loop.begun(work).run(trackers)
            if ranks.is_main:
                _write(work)
            ranks.barrier()
        if ranks.is_main:
            work.checkpoints.drop_last()
    return folder


def _claim(work: Work) -> None:
    """Make the folder this pretraining's, or check that it is."""
    spec = work.spec
    tasks = {f"task {name}": catalog.task_sha256(name, spec.tasks_dir) for name in spec.task or ()}
    code = {"vlbench": __version__, "model": catalog.own_sha256(work.card), **tasks}
    claim(work.folder, spec, work.examples.manifests(), work.initial.hashes, code)


def used(recipe: Recipe) -> Recipe:
    """The recipe without what pretraining does not look at."""
    nothing: dict[str, None] = dict.fromkeys(NOT_USED if recipe.steps is None else (*NOT_USED, "epochs"))
    return recipe.model_copy(update=nothing)


def _resolved(spec: PretrainSpec, progress: Progress) -> tuple[ModelCard, str, PretrainSpec, str, Pairs]:
    """Card, size, the spec with its defaults written out, the command that was given, and what is learned from."""
    card = catalog.model_card(spec.model)
    check_trackers(spec.log_with)
    if not card.pretraining:
        raise VlbenchError(f"{card.name} has no pretraining: `vlbench list models` says which ones have")
    if needless := [name for name in NOT_USED if getattr(spec.train, name) is not None]:
        raise VlbenchError(f"train.{needless[0]} is for finetuning, and pretraining does not use it: leave it out")
    if spec.task is None and not spec.texts:
        spec = spec.model_copy(update={"task": CAPTIONS})
    examples = load_pairs(spec, progress)
    size = spec.size or ("tiny" if examples.tasks[0].source == "world" else "base")
    catalog.check_size(card, size)
    learned = card.recipe(RECIPE, size).model_copy(
        update={"accumulation": None}
    )  # finetuning's, unless it is asked for
    command, recipe = command_of(spec), used(learned.merged(spec.train))
    return card, size, spec.model_copy(update={"size": size, "train": recipe}), command, examples


def _begin(
    card: ModelCard,
    size: str,
    spec: PretrainSpec,
    command: str,
    examples: Pairs,
    folder: Path,
    progress: Progress,
    interrupt: Interrupt,
    ranks: Ranks,
) -> Work:
    """Build all that can be refused, before anything of an earlier pretraining is touched."""
    accelerator = make_accelerator(spec.device, spec.dtype, spec.threads or card.sizes[size].threads)
    material = Material(card, size, examples.tasks, examples, examples, spec.vocabulary, None, Loading())
    resources = ranks.together(lambda: make_resources(material, Stoppable(progress, interrupt)))
    seed_everything(spec.seed)
    module = catalog.load_pretraining(card, size, resources, spec.options)
    if isinstance(module.backbone, Fitted):
        module.backbone.fit(unique_refs(examples))
    if isinstance(module, LearnsAnswers) and (answers := examples.answers()):
        module.learn_answers(answers)
    if unknown := [name for name in spec.objectives or () if name not in module.objectives]:
        raise VlbenchError(f"{card.name} has no objective {', '.join(unknown)}: it has {', '.join(module.objectives)}")
    initial = ranks.together(lambda: find_initial(spec, card, size))
    load_initial(module, card, initial, resources.text.vocabulary_sha256, progress)
    check_cut(card.name, module, spec.objectives or module.objectives, spec.train, ranks.size)
    checkpoints = Checkpoints(folder, resources.text, {"model": card.name, "size": size})
    return Work(
        spec,
        command,
        card,
        examples,
        module,
        spec.train,
        folder,
        accelerator,
        checkpoints,
        progress,
        interrupt,
        initial,
    )


def _write(work: Work) -> None:
    """The weights under the names that runs load, the tokenizer, and the card; the weights last."""
    states = cast(nn.Module, work.module.backbone).state_dict()
    named = {f"backbone.{name}": value for name, value in states.items()} | dict(work.module.head_weights())
    weights = {name: value.detach().contiguous().cpu() for name, value in named.items()}
    card = {
        "command": work.command,
        "model": work.card.name,
        "size": work.spec.size,
        "spec": json.loads((work.folder / SPEC).read_text(encoding="utf8")),
        "settings": dict(work.module.settings()),
        "initial_weights": dict(work.initial.hashes),
        "data": work.examples.tasks[0].source,
        "pairs": len(work.examples),
        "steps": planned(work).steps,
        "losses": last_losses(work.folder, work.module.objectives),
        "vlbench": __version__,
    }
    atomic_write(work.folder / CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")
    if work.checkpoints.text is not None:
        work.checkpoints.text.save(work.folder / "tokenizer.json")
    if isinstance(work.module, LearnsAnswers) and work.module.answers:
        write_answers(work.folder / ANSWERS_FILE, work.module.answers)
    beside = work.folder / f".{WEIGHTS}"
    try:
        save_file(weights, beside, metadata=work.checkpoints.notes)
        synchronise(beside)  # before the state is dropped that they could be made again from
        beside.replace(work.folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot write {work.folder / WEIGHTS} ({error}): free some space") from None
