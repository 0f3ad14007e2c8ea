"""The steps of a pretraining: over any number of processes, and from wherever an earlier one stopped."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard, Recipe
from vlbench.core.errors import VlbenchError, is_out_of_memory
from vlbench.core.pretraining import LearnsAnswers, Pretraining
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.engine.batching.batches import loader, training_blocks
from vlbench.engine.pretraining.cut import has_live_batch_norms
from vlbench.engine.pretraining.initial import Initial
from vlbench.engine.pretraining.pairs import Pairs, worths
from vlbench.engine.runtime.environment import remedy_of_nan
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.runtime.memory import out_of_memory
from vlbench.engine.runtime.trackers import Trackers
from vlbench.engine.training.batchnorm import check_rows, synchronise_batch_norms
from vlbench.engine.training.checkpoint import Checkpoints, TrainState
from vlbench.engine.training.collectives import (
    all_chance,
    backward,
    check_alike,
    draw_apart,
    gathered_rows,
    same_buffers,
    total,
)
from vlbench.engine.training.metrics_log import Journal
from vlbench.engine.training.micro_batches import Share, shares
from vlbench.engine.training.optimizer import make_optimizer, make_schedule
from vlbench.engine.training.plan import Plan, make_plan, training_units
from vlbench.records.folder import RunFolder


@dataclass(frozen=True)
class Work:
    """A resolved pretraining: the module, its pairs, the recipe with nothing left open, and where it is written.

    initial: the weights that the module has started from.
    """

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
    initial: Initial

    @property
    def network(self) -> nn.Module:
        """The module as what it is to torch."""
        return cast(nn.Module, self.module)


class Losses(nn.Module):
    """A pretraining whose forward gives the losses that are asked for, since that is what DDP wraps."""

    def __init__(self, module: Pretraining, wanted: Sequence[str] | None) -> None:
        super().__init__()
        self.module = cast(nn.Module, module)
        self.wanted = wanted

    def forward(self, batch: Tensors) -> dict[str, Tensor]:
        """One scalar per objective."""
        losses = cast(Pretraining, self.module).losses(batch)
        return {name: loss for name, loss in losses.items() if name in (self.wanted or losses)}


class Prepared(Dataset[Tensors]):
    """Shares of steps, each prepared when asked for, each with a stream of chance of its own."""

    def __init__(self, work: Work, of: Sequence[Share]) -> None:
        self.module, self.examples, self.seed = work.module, work.examples, work.spec.seed
        self.of = of

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> Tensors:
        share = self.of[index]
        examples = [self.examples[row] for row in share.rows]
        part = f"/{share.places[0]}" if share.places[0] else ""
        rng = Random(f"{self.seed}/pretraining/{share.step}{part}")
        batch = self.module.prepare([example.query for example in examples], rng)
        if isinstance(self.module, LearnsAnswers):
            return {**batch, **self.module.prepare_answers([worths(example) for example in examples], rng)}
        return batch


def planned(work: Work) -> Plan:
    """The recipe counted over the examples."""
    return make_plan(work.recipe, training_units(work.recipe, work.examples), work.spec.seed)


@dataclass
class Loop:
    """What a step changes, and how far it is."""

    work: Work
    plan: Plan
    wrapped: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    state: TrainState

    @classmethod
    def begun(cls, work: Work) -> Loop:
        """From the last state that was saved, or from the start."""
        plan = planned(work)
        network = work.network.to(work.accelerator.device)
        synchronise_batch_norms(network, work.accelerator)
        optimizer = make_optimizer(network, work.module.backbone, work.recipe)
        wrapped, optimizer = work.accelerator.prepare(Losses(work.module, work.spec.objectives), optimizer)
        schedule = make_schedule(optimizer, plan.steps, work.recipe)
        draw_apart(work.accelerator, work.spec.seed)
        rank = work.accelerator.process_index
        state = work.checkpoints.load_last(network, None, optimizer, schedule, rank)
        check_alike(work.accelerator, state.step if state else -1)
        if state is not None:
            work.progress.say(f"pretraining: resuming after step {state.step} of {plan.steps}")
        return cls(work, plan, wrapped, optimizer, schedule, state or TrainState())

    def run(self, trackers: Trackers) -> None:
        """Train to the last step; trackers are told of each.

        Raises:
            Interrupted: asked to stop; the state is saved first.
            VlbenchError: a loss is not a number; memory does not suffice (exit 9).
        """
        work, saved, stops = self.work, self.state.step, False
        log = Journal(RunFolder(work.folder), writes=work.accelerator.is_main_process, trackers=trackers)
        alone, steps = work.accelerator.num_processes == 1, self._shares()
        stream = loader(Prepared(work, [share for of in steps for share in of]), work.spec.workers, self._device)
        self.wrapped.train()
        for of in steps:
            if stops or (alone and work.interrupt.asked):  # else some would stop a step before the others
                self._save()
                raise Interrupted
            stops = self._step(of, stream, log)
            if self.state.step - saved >= work.spec.save_every:
                self._save()
                saved = self.state.step
        same_buffers(work.accelerator, work.network)

    def _shares(self) -> list[list[Share]]:
        """This process's, of the steps that are left."""
        work, size = self.work, self.plan.batch_size
        blocks = training_blocks(training_units(work.recipe, work.examples), size, self.plan.steps, work.spec.seed)
        place = work.accelerator.process_index, work.accelerator.num_processes
        if has_live_batch_norms(work.module):
            check_rows(blocks, work.accelerator.num_processes)
        left = range(self.state.step, len(blocks))
        return [shares(blocks[step], step, self.plan.accumulation, *place) for step in left]

    def _step(self, of: Sequence[Share], stream: Iterator[Tensors], log: Journal) -> bool:
        """One optimizer step and its line in the log; whether some process was asked to stop."""
        work, started = self.work, time.perf_counter()
        rate = float(self.schedule.get_last_lr()[0])
        try:
            losses, norm = self._done(of, stream)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(
                f"with {len(of[0].places)} pairs per forward", "give a smaller --batch-size, or a larger machine"
            ) from None
        *values, asked = total(work.accelerator, [*losses.values(), float(work.interrupt.asked)])
        self.state.step += 1
        seconds = time.perf_counter() - started
        named = dict(zip(losses, values, strict=True))
        line = {"step": self.state.step, "loss": sum(values), **named, "lr": rate, "grad_norm": norm}
        log(line | {"seconds": seconds})
        work.progress.step("pretraining", self.state.step, self.plan.steps, f"loss {sum(values):.3f}")
        return asked > 0

    def _done(self, of: Sequence[Share], stream: Iterator[Tensors]) -> tuple[Mapping[str, float], float]:
        """The losses by objective, of this process's share, and the gradient's norm."""
        work, losses = self.work, defaultdict[str, float](float)
        parts = zip(islice(stream, len(of)), (share.weight for share in of), strict=True)
        backward(work.accelerator, self.wrapped, parts, len(of), partial(self._loss, losses))
        clip = work.recipe.clip or float("inf")
        norm = work.accelerator.clip_grad_norm_(self.wrapped.parameters(), clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        work.module.after_step(partial(gathered_rows, work.accelerator))
        return losses, float(norm)

    def _loss(self, losses: dict[str, float], one: tuple[Tensors, float]) -> Tensor:
        batch, weight = one
        found = self.wrapped({name: value.to(self._device) for name, value in batch.items()})
        summed: Tensor = torch.stack(list(found.values())).sum()
        if not bool(summed.isfinite()):
            raise VlbenchError(
                f"the loss is not a number ({', '.join(found)}): "
                f"{remedy_of_nan(self.work.accelerator, self.work.recipe.lr)}"
            )
        for name, loss in found.items():
            losses[name] += float(loss.detach()) * weight
        return summed * weight

    def _save(self) -> None:
        work, chance = self.work, all_chance(self.work.accelerator)
        same_buffers(work.accelerator, work.network)
        if work.accelerator.is_main_process:
            weights = work.network.state_dict()
            work.checkpoints.save_last(self.state, weights, None, self.optimizer, self.schedule, chance)
        work.accelerator.wait_for_everyone()

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.work.accelerator.device
        return device
