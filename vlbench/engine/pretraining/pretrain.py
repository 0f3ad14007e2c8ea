"""Pretrain a backbone on images and captions: reproducible, resumable, ending in safetensors and a card."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

from safetensors import SafetensorError

from vlbench import __version__, catalog
from vlbench.core.backbone import Fitted
from vlbench.core.cards import ModelCard, Recipe
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.paths import expand_home
from vlbench.core.pretraining import LearnsAnswers
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.data.cache.folder import atomic_write
from vlbench.data.resources import Loading
from vlbench.data.text.answers import ANSWERS_FILE, write_answers
from vlbench.engine.pretraining.cut import as_network, check_cut
from vlbench.engine.pretraining.folder import (
    CAPTIONS,
    CARD,
    SPEC,
    WEIGHTS,
    claim_folder,
    command_of,
    last_losses,
    make_folder,
)
from vlbench.engine.pretraining.initial import find_initial, load_initial
from vlbench.engine.pretraining.loop import Loop, Work, plan_steps
from vlbench.engine.pretraining.pairs import Pairs, load_pairs
from vlbench.engine.resources import ResourceSpec, make_resources, unique_refs
from vlbench.engine.runtime.environment import make_accelerator, seed_everything
from vlbench.engine.runtime.interrupt import Interrupt, Stoppable
from vlbench.engine.runtime.ranks import Ranks, joined
from vlbench.engine.runtime.trackers import check_trackers, tracked
from vlbench.engine.training.atomic_folder import drop_training_state, flush
from vlbench.engine.training.checkpoint import Checkpoints, save_weights
from vlbench.records.lock import run_lock

RECIPE = "pretrain"
"""The name of the pretraining recipe in a model card."""
NOT_USED = (
    "ema", "augment", "short_side", "long_side", "evaluations", "head_lr",
    "rank_loss", "negative_texts", "negative_images", "margin", "lora_rank", "train_splits",
    "batch_norm",
)  # fmt: skip
"""Fields of a recipe that apply to fine-tuning only."""


def pretrain(spec: PretrainSpec, progress: Progress) -> Path:
    """Pretrain a model, or resume its pretraining, and write weights, tokenizer and card; returns their folder.

    Nothing is written, not even the folder, before everything that can be rejected is built.

    Raises:
        VlbenchError: the model has no pretraining or lacks an objective, or the folder holds another pretraining.
        Interrupted: the user asked to stop; the state is saved, and the same spec resumes from it.
    """
    with joined(spec.device, spec.num_processes, progress) as ranks:
        return _pretrain(spec, progress, ranks)


def _pretrain(spec: PretrainSpec, progress: Progress, ranks: Ranks) -> Path:
    card, size, spec, command, examples = ranks.together(lambda: _resolved(spec, progress))
    folder = expand_home(spec.output_path) / f"{card.name}-{size}"
    with Interrupt() as interrupt:
        work = _build(card, size, spec, command, examples, folder, progress, interrupt, ranks)
        make_folder(folder)
        with run_lock(folder) if ranks.is_main else nullcontext():
            ranks.together(lambda: claim_folder(work))
            if (folder / WEIGHTS).is_file():
                progress.say("already done: these are the weights of that pretraining")
            else:
                with tracked(work.spec, folder, f"{card.name}-{size} pretrained", ranks) as trackers:
                    Loop.resume(work).run(trackers)
                if ranks.is_main:
                    _write(work)
                ranks.barrier()
            if ranks.is_main:
                drop_training_state(folder)
    return folder


def used(recipe: Recipe) -> Recipe:
    """The recipe without the fields that pretraining does not use."""
    unused: dict[str, None] = dict.fromkeys(NOT_USED if recipe.steps is None else (*NOT_USED, "epochs"))
    return recipe.model_copy(update=unused)


def _resolved(spec: PretrainSpec, progress: Progress) -> tuple[ModelCard, str, PretrainSpec, str, Pairs]:
    """The model's card, its size, the spec with its defaults filled in, the command line, and the training data."""
    card = catalog.model_card(spec.model)
    check_trackers(spec.log_with)
    if not card.pretraining:
        raise VlbenchError(f"{card.name} has no pretraining: `vlbench list models` says which ones have")
    if unused := [name for name in NOT_USED if getattr(spec.train, name) is not None]:
        raise VlbenchError(f"train.{unused[0]} is for finetuning, and pretraining does not use it: leave it out")
    if spec.task is None and not spec.texts:
        spec = spec.model_copy(update={"task": CAPTIONS})
    examples = load_pairs(spec, progress)
    size = spec.size or ("tiny" if examples.tasks[0].source == "world" else "base")
    catalog.check_size(card, size)
    # The card's accumulation is for fine-tuning; pretraining uses only what the user sets.
    defaults = card.recipe(RECIPE, size).model_copy(update={"accumulation": None})
    command, recipe = command_of(spec), used(defaults.merged(spec.train))
    return card, size, spec.model_copy(update={"size": size, "train": recipe}), command, examples


def _build(
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
    """Build the pretraining and check it, without writing to its folder."""
    threads = spec.threads or card.sizes[size].threads
    accelerator = make_accelerator(spec.device, spec.dtype, threads, spec.matmul_precision)
    material = ResourceSpec(card, size, examples.tasks, examples, examples, spec.vocabulary, None, Loading())
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
    return Work(spec, command, card, examples, module, folder, accelerator, checkpoints, progress, interrupt, initial)


def _write(work: Work) -> None:
    """Write the card, the tokenizer and, last, the weights under the names that runs load."""
    backbone = as_network(work.module.backbone).state_dict()
    named = {f"backbone.{name}": value for name, value in backbone.items()} | dict(work.module.head_weights())
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
        "steps": plan_steps(work).steps,
        "losses": last_losses(work.folder, work.module.objectives),
        "vlbench": __version__,
    }
    atomic_write(work.folder / CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")
    if work.checkpoints.text is not None:
        work.checkpoints.text.save(work.folder / "tokenizer.json")
    if isinstance(work.module, LearnsAnswers) and work.module.answers:
        write_answers(work.folder / ANSWERS_FILE, work.module.answers)
    temporary = work.folder / f".{WEIGHTS}"
    try:
        save_weights(weights, temporary, work.checkpoints.metadata)
        flush(temporary)  # before the training state is deleted, from which the weights could be written again
        temporary.replace(work.folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot write {work.folder / WEIGHTS} ({error}): free some space") from None
