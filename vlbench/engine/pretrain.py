"""Pretrain a backbone on pictures and captions: seeded, resumable, safetensors out with a card that says how."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import cast

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vlbench import __version__, catalog
from vlbench.core.backbone import Fitted, Tensors
from vlbench.core.cards import ModelCard, Recipe
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.pretraining import Answering, Pretraining
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.data.cache import atomic_write
from vlbench.data.resources import Loading
from vlbench.engine.batches import related, training_blocks
from vlbench.engine.checkpoint import Checkpoints, TrainState
from vlbench.engine.environment import make_accelerator, seed_everything
from vlbench.engine.finetune import make_plan
from vlbench.engine.interrupt import Interrupt, Interrupted, Stoppable
from vlbench.engine.optimizer import make_optimizer, make_schedule
from vlbench.engine.pairs import Pairs, load_pairs, worths
from vlbench.engine.pretrain_folder import (
    CAPTIONS,
    CARD,
    SPEC,
    WEIGHTS,
    claim,
    command_of,
    cut_log,
    last_losses,
    made,
)
from vlbench.engine.resources import Material, make_resources, unique_refs
from vlbench.records.folder import RunFolder
from vlbench.records.lock import run_lock

RECIPE = "pretrain"
"""Its name among a model card's recipes."""
NOT_USED = (
    "accumulation", "ema", "augment", "evaluations", "head_lr",
    "rank_loss", "negative_texts", "negative_images", "margin", "lora_rank",
)  # fmt: skip
"""Fields of a recipe that are for finetuning alone."""


@dataclass(frozen=True)
class Work:
    """A resolved pretraining: the module, its pairs, the recipe with nothing left open, and where it is written."""

    spec: PretrainSpec
    command: str
    card: ModelCard
    examples: Pairs
    module: Pretraining
    recipe: Recipe
    folder: Path
    accelerator: Accelerator
    checkpoints: Checkpoints
    progress: Progress
    interrupt: Interrupt


def pretrain(spec: PretrainSpec, progress: Progress) -> Path:
    """Pretrain, or go on with it, and write weights, tokenizer and card; the folder that holds them.

    Raises:
        VlbenchError: a model without pretraining, objectives it does not have, or a folder that holds another one.
        Interrupted: asked to stop; the state is saved, and the same spec goes on from there.
    """
    card, size, spec, command, examples = _resolved(spec, progress)
    folder = made(spec.output_path / f"{card.name}-{size}")
    with run_lock(folder), Interrupt() as interrupt:
        work = _begin(card, size, spec, command, examples, folder, progress, interrupt)
        claim(folder, work.spec, examples.manifests(spec.split))
        if (folder / WEIGHTS).is_file():
            progress.say("already done: these are the weights of that pretraining")
            return folder
        _train(work)
        _write(work)
        work.checkpoints.drop_last()
    return folder


def used(recipe: Recipe) -> Recipe:
    """The recipe without what pretraining does not look at."""
    nothing: dict[str, None] = dict.fromkeys(NOT_USED if recipe.steps is None else (*NOT_USED, "epochs"))
    return recipe.model_copy(update=nothing)


def _resolved(spec: PretrainSpec, progress: Progress) -> tuple[ModelCard, str, PretrainSpec, str, Pairs]:
    """Card, size, the spec with its defaults written out, the command that was given, and what is learned from."""
    card = catalog.model_card(spec.model)
    if not card.pretraining:
        raise VlbenchError(f"{card.name} has no pretraining: `vlbench list models` says which ones have")
    if needless := [name for name in NOT_USED if getattr(spec.train, name) is not None]:
        raise VlbenchError(f"train.{needless[0]} is for finetuning, and pretraining does not use it: leave it out")
    if spec.task is None and not spec.texts:
        spec = spec.model_copy(update={"task": CAPTIONS})
    examples = load_pairs(spec, progress)
    size = spec.size or ("tiny" if examples.tasks[0].source == "world" else "base")
    catalog.check_size(card, size)
    command, recipe = command_of(spec), used(card.recipe(RECIPE, size).merged(spec.train))
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
) -> Work:
    """Build all that can be refused, before anything of an earlier pretraining is touched."""
    accelerator = make_accelerator(spec.device, spec.dtype, spec.threads or card.sizes[size].threads)
    if accelerator.num_processes > 1:
        raise VlbenchError(f"pretraining runs in one process, and {accelerator.num_processes} were started: start one")
    material = Material(card, size, examples.tasks, examples, examples, spec.vocabulary, None, Loading())
    resources = make_resources(material, Stoppable(progress, interrupt))
    seed_everything(spec.seed)
    module = catalog.load_pretraining(card, size, resources, spec.options)
    if isinstance(module.backbone, Fitted):
        module.backbone.fit(unique_refs(examples))
    if isinstance(module, Answering) and (answers := examples.answers()):
        module.learn_answers(answers)
    if unknown := [name for name in spec.objectives or () if name not in module.objectives]:
        raise VlbenchError(f"{card.name} has no objective {', '.join(unknown)}: it has {', '.join(module.objectives)}")
    checkpoints = Checkpoints(folder, resources.text, {"model": card.name, "size": size})
    return Work(
        spec, command, card, examples, module, spec.train, folder, accelerator, checkpoints, progress, interrupt
    )


class Prepared(Dataset[Tensors]):
    """Blocks of rows, each prepared when asked for; block `first + n` has a stream of chance of its own."""

    def __init__(self, work: Work, blocks: Sequence[Sequence[int]], first: int) -> None:
        self.module, self.examples, self.seed = work.module, work.examples, work.spec.seed
        self.blocks, self.first = blocks, first

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Tensors:
        examples = [self.examples[row] for row in self.blocks[index]]
        rng = Random(f"{self.seed}/pretraining/{self.first + index}")
        batch = self.module.prepare([example.query for example in examples], rng)
        if isinstance(self.module, Answering):
            return {**batch, **self.module.prepare_answers([worths(example) for example in examples], rng)}
        return batch


def _train(work: Work) -> None:
    """Train to the last step."""
    plan = make_plan(work.recipe, len(work.examples))
    module = cast(nn.Module, work.module).to(work.accelerator.device)
    optimizer = work.accelerator.prepare(make_optimizer(module, work.module.backbone, work.recipe))
    schedule = make_schedule(optimizer, plan.steps, work.recipe)
    state = work.checkpoints.load_last(module, None, optimizer, schedule) or TrainState()
    cut_log(work.folder, state.step)
    if state.step:
        work.progress.say(f"pretraining: resuming after step {state.step} of {plan.steps}")
    together = work.recipe.batches == "related"
    units = related(work.examples, plan.batch_size) if together else [[row] for row in range(len(work.examples))]
    blocks = training_blocks(units, plan.batch_size, plan.steps, work.spec.seed)[state.step :]
    saved = state.step
    module.train()
    try:
        for batch in DataLoader(Prepared(work, blocks, state.step), None, num_workers=work.spec.workers):
            work.interrupt.check()
            started, rate = time.perf_counter(), float(schedule.get_last_lr()[0])
            losses, norm = _step(work, module, optimizer, batch)
            schedule.step()
            work.module.after_step()
            state.step += 1
            _log(work, state.step, losses, rate, norm, time.perf_counter() - started)
            work.progress.step("pretraining", state.step, plan.steps, f"loss {sum(losses.values()):.3f}")
            if state.step - saved >= work.spec.save_every:
                work.checkpoints.save_last(state, module, None, optimizer, schedule)
                saved = state.step
    except Interrupted:
        work.checkpoints.save_last(state, module, None, optimizer, schedule)
        raise


def _step(
    work: Work, module: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensors
) -> tuple[dict[str, float], float]:
    """One optimizer step: the losses by objective, and the gradient's norm."""
    with work.accelerator.autocast():
        losses = work.module.losses({k: v.to(work.accelerator.device) for k, v in batch.items()})
        losses = {name: loss for name, loss in losses.items() if name in (work.spec.objectives or losses)}
        total = torch.stack(list(losses.values())).sum()
    if not bool(total.isfinite()):
        raise VlbenchError(
            f"the loss is not a number ({', '.join(losses)}): lower --lr ({work.recipe.lr}) or use --dtype float32"
        )
    optimizer.zero_grad(set_to_none=True)
    work.accelerator.backward(total)
    norm = work.accelerator.clip_grad_norm_(module.parameters(), work.recipe.clip or float("inf"))
    optimizer.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}, float(norm)


def _log(work: Work, step: int, losses: Mapping[str, float], rate: float, norm: float, seconds: float) -> None:
    line = {"step": step, "loss": sum(losses.values()), **losses, "lr": rate, "grad_norm": norm, "seconds": seconds}
    RunFolder(work.folder).append_metrics(line)


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
        "data": work.examples.tasks[0].source,
        "pairs": len(work.examples),
        "steps": make_plan(work.recipe, len(work.examples)).steps,
        "losses": last_losses(work.folder, work.module.objectives),
        "vlbench": __version__,
    }
    atomic_write(work.folder / CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")
    if work.checkpoints.text is not None:
        work.checkpoints.text.save(work.folder / "tokenizer.json")
    beside = work.folder / f".{WEIGHTS}"
    try:
        save_file(weights, beside, metadata=work.checkpoints.names)
        beside.replace(work.folder / WEIGHTS)
    except OSError as error:
        raise DataError(f"cannot write {work.folder / WEIGHTS} ({error}): free some space") from None
