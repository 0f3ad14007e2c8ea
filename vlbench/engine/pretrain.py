"""Pretrain a backbone on pictures and captions: seeded, resumable, safetensors out with a card that says how."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import cast

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vlbench import catalog
from vlbench.core.backbone import Fitted, Tensors
from vlbench.core.cards import ModelCard, Recipe
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.pretraining import Answering, Pretraining
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.data.cache import atomic_write
from vlbench.engine.batches import related, training_blocks
from vlbench.engine.checkpoint import Checkpoints, TrainState
from vlbench.engine.environment import make_accelerator, seed_everything
from vlbench.engine.finetune import make_plan
from vlbench.engine.interrupt import Interrupt, Interrupted, Stoppable
from vlbench.engine.optimizer import make_optimizer, make_schedule
from vlbench.engine.pairs import Pairs, load_pairs, worths
from vlbench.engine.resources import Material, make_resources, unique_refs
from vlbench.records.folder import RunFolder

RECIPE = "pretrain"
"""Its name among a model card's recipes."""
CAPTIONS = ("coco_retrieval",)
"""What is learned from unless told otherwise."""
WEIGHTS, CARD, METRICS = "model.safetensors", "card.json", "metrics.jsonl"
_LAST = 50
"""Steps whose mean losses the card gives."""


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


@dataclass
class Recent:
    """The losses of the last steps, by objective."""

    losses: dict[str, list[float]] = field(default_factory=dict)

    def add(self, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self.losses[name] = [*self.losses.get(name, []), value][-_LAST:]

    def means(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self.losses.items()}


def pretrain(spec: PretrainSpec, progress: Progress) -> Path:
    """Pretrain, or go on with it, and write weights, tokenizer and card; the folder that holds them.

    Raises:
        VlbenchError: a model without pretraining, objectives it does not have, or a folder that holds another one.
        Interrupted: asked to stop; the state is saved, and the same spec goes on from there.
    """
    with Interrupt() as interrupt:
        work = _begin(spec, progress, interrupt)
        if (work.folder / WEIGHTS).is_file():
            progress.say("already done: these are the weights of that pretraining")
            return work.folder
        means = _train(work)
    _write(work, means)
    work.checkpoints.drop_last()
    return work.folder


def _begin(spec: PretrainSpec, progress: Progress, interrupt: Interrupt) -> Work:
    card = catalog.model_card(spec.model)
    if not card.pretraining:
        raise VlbenchError(f"{card.name} has no pretraining: `vlbench list models` says which ones have")
    if spec.task is None and not spec.texts:
        spec = spec.model_copy(update={"task": CAPTIONS})
    examples = load_pairs(spec, progress)
    size = spec.size or ("tiny" if examples.tasks[0].source == "world" else "base")
    catalog.check_size(card, size)
    recipe = card.recipe(RECIPE, size).merged(spec.train)
    command = command_of(spec)
    spec = spec.model_copy(update={"size": size, "train": recipe})
    folder = spec.output_path / f"{card.name}-{size}"
    _claim(folder, spec, examples.manifests(spec.split))
    accelerator = make_accelerator(spec.device, spec.dtype, spec.threads or card.sizes[size].threads)
    material = Material(card, size, examples.tasks, examples, examples, spec.vocabulary, None)
    resources = make_resources(material, Stoppable(progress, interrupt))
    seed_everything(spec.seed)
    module = catalog.load_pretraining(card, size, resources, spec.options)
    if isinstance(module.backbone, Fitted):
        module.backbone.fit(unique_refs(examples))
    if isinstance(module, Answering) and (answers := examples.answers()):
        module.learn_answers(answers)
    checkpoints = Checkpoints(folder, resources.text, {"model": card.name, "size": size})
    return Work(spec, command, card, examples, module, recipe, folder, accelerator, checkpoints, progress, interrupt)


def command_of(spec: PretrainSpec) -> str:
    """The command line that asks for this pretraining, wherever and however fast it runs."""
    words = ["vlbench", "pretrain", "--model", spec.model]
    if spec.task and spec.task != CAPTIONS:
        words += ["--task", ",".join(spec.task)]
    words += [word for path in spec.texts for word in ("--texts", path.name)]
    for name, known in PretrainSpec.model_fields.items():
        value = getattr(spec, name)
        if name in ("size", "split", "domain", "seed", "dtype") and value != known.default:
            words += [f"--{name}", str(value)]
    if spec.objectives:
        words += ["--objectives", ",".join(spec.objectives)]
    settings = spec.train.model_dump(mode="json", exclude_none=True)
    words += [word for name, value in settings.items() for word in ("--set", f"train.{name}={value}")]
    words += [word for name, value in spec.options.items() for word in ("--set", f"options.{name}={value}")]
    return shlex.join(words)


def _claim(folder: Path, spec: PretrainSpec, manifests: Mapping[str, str]) -> None:
    """Make the folder this pretraining's, or check that it is: what was begun otherwise is not gone on with."""
    meaning = spec.model_dump(
        mode="json", exclude={"device", "workers", "threads", "output_path", "resume", "data_root"}
    )
    text = json.dumps(meaning | {"manifests": manifests}, indent=2, sort_keys=True) + "\n"
    begun = folder / "spec.json"
    if begun.is_file() and begun.read_text(encoding="utf8") != text:
        if spec.resume:
            raise VlbenchError(
                f"{folder} holds another pretraining of {spec.model}: give another --output-path, or begin anew "
                f"with --no-resume"
            )
    elif begun.is_file() and spec.resume:
        return
    for name in (WEIGHTS, CARD, METRICS):
        (folder / name).unlink(missing_ok=True)
    Checkpoints(folder).drop_last()
    atomic_write(begun, text)


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


def _train(work: Work) -> dict[str, float]:
    """Train to the last step; the mean losses of the last ones."""
    plan = make_plan(work.recipe, len(work.examples))
    module = cast(nn.Module, work.module).to(work.accelerator.device)
    optimizer = make_optimizer(module, work.module.backbone, work.recipe)
    schedule = make_schedule(optimizer, plan.steps, work.recipe)
    state = work.checkpoints.load_last(module, None, optimizer, schedule) or TrainState()
    if state.step:
        work.progress.say(f"pretraining: resuming after step {state.step} of {plan.steps}")
    together = work.recipe.batches == "related"
    units = related(work.examples, plan.batch_size) if together else [[row] for row in range(len(work.examples))]
    blocks = training_blocks(units, plan.batch_size, plan.steps, work.spec.seed)[state.step :]
    recent, saved = Recent(), state.step
    module.train()
    try:
        for batch in DataLoader(Prepared(work, blocks, state.step), None, num_workers=work.spec.workers):
            work.interrupt.check()
            started, rate = time.perf_counter(), float(schedule.get_last_lr()[0])
            losses, norm = _step(work, module, optimizer, batch)
            schedule.step()
            work.module.after_step()
            state.step += 1
            recent.add(losses)
            _log(work, state.step, losses, rate, norm, time.perf_counter() - started)
            work.progress.step("pretraining", state.step, plan.steps, f"loss {sum(losses.values()):.3f}")
            if state.step - saved >= work.spec.save_every:
                work.checkpoints.save_last(state, module, None, optimizer, schedule)
                saved = state.step
    except Interrupted:
        work.checkpoints.save_last(state, module, None, optimizer, schedule)
        raise
    return recent.means()


def _step(
    work: Work, module: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensors
) -> tuple[dict[str, float], float]:
    """One optimizer step: the losses by objective, and the gradient's norm."""
    with work.accelerator.autocast():
        losses = _chosen(work, work.module.losses({k: v.to(work.accelerator.device) for k, v in batch.items()}))
        total = torch.stack(list(losses.values())).sum()
    if not bool(total.isfinite()):
        raise VlbenchError(
            f"the loss is not a number ({', '.join(losses)}): lower --lr ({work.recipe.lr}) or use --dtype float32"
        )
    optimizer.zero_grad(set_to_none=True)
    if total.requires_grad:  # the first steps of a queue only fill it
        work.accelerator.backward(total)
    norm = nn.utils.clip_grad_norm_(module.parameters(), work.recipe.clip or float("inf"))
    optimizer.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}, float(norm)


def _chosen(work: Work, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    wanted = work.spec.objectives or tuple(losses)
    unknown = [name for name in wanted if name not in losses]
    if unknown:
        raise VlbenchError(f"{work.card.name} has no objective {', '.join(unknown)}: it has {', '.join(losses)}")
    return {name: losses[name] for name in wanted}


def _log(work: Work, step: int, losses: Mapping[str, float], rate: float, norm: float, seconds: float) -> None:
    line = {"step": step, "loss": sum(losses.values()), **losses, "lr": rate, "grad_norm": norm, "seconds": seconds}
    RunFolder(work.folder).append_metrics(line)


def _write(work: Work, means: Mapping[str, float]) -> None:
    """The weights under the names that runs load, the tokenizer, and the card; the weights last."""
    states = cast(nn.Module, work.module.backbone).state_dict()
    named = {f"backbone.{name}": value for name, value in states.items()} | dict(work.module.head_weights())
    weights = {name: value.detach().contiguous().cpu() for name, value in named.items()}
    card = {
        "command": work.command,
        "model": work.card.name,
        "size": work.spec.size,
        "spec": json.loads((work.folder / "spec.json").read_text(encoding="utf8")),
        "settings": dict(work.module.settings()),
        "data": work.examples.tasks[0].source,
        "pairs": len(work.examples),
        "steps": make_plan(work.recipe, len(work.examples)).steps,
        "losses": {name: round(value, 4) for name, value in means.items()},
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
