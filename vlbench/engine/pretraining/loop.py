"""The optimizer steps of a pretraining, over any number of processes, from the last saved state on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.columns import take
from vlbench.core.errors import VlbenchError, is_out_of_memory, remedy_of_nan
from vlbench.core.pretraining import LearnsAnswers, Pretraining
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.engine.batching.batches import loader, training_blocks
from vlbench.engine.pretraining.cut import as_network, has_live_batch_norms
from vlbench.engine.pretraining.initial import Initial
from vlbench.engine.pretraining.pairs import Pairs, answer_scores
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.runtime.memory import out_of_memory
from vlbench.engine.runtime.trackers import Trackers
from vlbench.engine.training.batchnorm import check_rows, synchronise_batch_norms
from vlbench.engine.training.checkpoint import Checkpoints, TrainState
from vlbench.engine.training.collectives import (
    backward,
    broadcast_buffers,
    check_same_step,
    gather_random_states,
    gathered_rows,
    seed_by_rank,
    total,
)
from vlbench.engine.training.metrics_log import MetricsLog
from vlbench.engine.training.micro_batches import Share, shares
from vlbench.engine.training.optimizer import make_optimizer, make_schedule
from vlbench.engine.training.plan import Plan, make_plan, training_units
from vlbench.records.folder import RunFolder


@dataclass(frozen=True)
class Work:
    """A resolved pretraining, with everything it needs.

    spec: with its defaults filled in, among them the recipe. command: the command line that reproduces it. examples:
    the training data. module: the backbone and its objectives. initial: the weights that the module started from.
    """

    spec: PretrainSpec
    command: str
    card: ModelCard
    examples: Pairs
    module: Pretraining
    folder: Path
    accelerator: Accelerator
    checkpoints: Checkpoints
    progress: Progress
    interrupt: Interrupt
    initial: Initial

    @property
    def network(self) -> nn.Module:
        """The module under its torch type."""
        return as_network(self.module)


class Losses(nn.Module):
    """A pretraining whose forward pass returns the wanted losses; DDP wraps the forward pass only."""

    def __init__(self, module: Pretraining, wanted: Sequence[str] | None) -> None:
        super().__init__()
        self.module, self.wanted = module, wanted

    def forward(self, batch: Tensors) -> dict[str, Tensor]:
        """One scalar per wanted objective, by name."""
        losses = self.module.losses(batch)
        return {name: loss for name, loss in losses.items() if name in (self.wanted or losses)}


class PretrainingBatches(Dataset[Tensors]):
    """A dataset of shares of steps, each prepared on access, each with its own random generator."""

    def __init__(self, work: Work, shares: Sequence[Share]) -> None:
        self.module, self.examples, self.seed = work.module, work.examples, work.spec.seed
        self.shares = shares

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, index: int) -> Tensors:
        share = self.shares[index]
        examples = take(self.examples, share.rows)
        part = f"/{share.places[0]}" if share.places[0] else ""
        rng = Random(f"{self.seed}/pretraining/{share.step}{part}")
        batch = self.module.prepare([example.query for example in examples], rng)
        if isinstance(self.module, LearnsAnswers):
            return {**batch, **self.module.prepare_answers([answer_scores(example) for example in examples], rng)}
        return batch


def plan_steps(work: Work) -> Plan:
    """The recipe with its steps counted over the examples."""
    return make_plan(work.spec.train, training_units(work.spec.train, work.examples), work.spec.seed)


@dataclass
class Loop:
    """A pretraining in progress. work: what it needs. wrapped: the module as DDP wraps it. state: how far it is."""

    work: Work
    plan: Plan
    wrapped: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    state: TrainState

    @classmethod
    def resume(cls, work: Work) -> Loop:
        """Resume from the last saved state, or start from the beginning.

        Raises:
            DataError: every saved state is damaged or of another model, or processes found different ones.
        """
        plan = plan_steps(work)
        network = work.network.to(work.accelerator.device)
        synchronise_batch_norms(network, work.accelerator)
        optimizer = make_optimizer(network, work.module.backbone, work.spec.train)
        wrapped, optimizer = work.accelerator.prepare(Losses(work.module, work.spec.objectives), optimizer)
        schedule = make_schedule(optimizer, plan.steps, work.spec.train)
        seed_by_rank(work.accelerator, work.spec.seed)
        state = work.checkpoints.load_last(network, None, optimizer, schedule, work.accelerator.process_index)
        check_same_step(work.accelerator, state.step if state else -1)
        if state is not None:
            work.progress.say(f"pretraining: resuming after step {state.step} of {plan.steps}")
        return cls(work, plan, wrapped, optimizer, schedule, state or TrainState())

    def run(self, trackers: Trackers) -> None:
        """Train to the last step and log every step, also to the trackers.

        Raises:
            Interrupted: the user asked to stop; the state is saved first.
            VlbenchError: a loss is not a number; memory runs out (exit 9).
        """
        work, saved, stops = self.work, self.state.step, False
        log = MetricsLog(RunFolder(work.folder), writes=work.accelerator.is_main_process, trackers=trackers)
        alone, steps = work.accelerator.num_processes == 1, self._shares()
        batches = PretrainingBatches(work, [share for own in steps for share in own])
        stream = loader(batches, work.spec.workers, self._device)
        self.wrapped.train()
        for own in steps:
            if stops or (alone and work.interrupt.asked):  # several processes must stop after the same step
                self._save()
                raise Interrupted
            stops = self._step(own, stream, log)
            if self.state.step - saved >= work.spec.save_every:
                self._save()
                saved = self.state.step
        broadcast_buffers(work.accelerator, work.network)

    def _shares(self) -> list[list[Share]]:
        """This process's shares of the remaining steps, by step."""
        work, size = self.work, self.plan.batch_size
        blocks = training_blocks(training_units(work.spec.train, work.examples), size, self.plan.steps, work.spec.seed)
        place = work.accelerator.process_index, work.accelerator.num_processes
        if has_live_batch_norms(work.network):
            check_rows(blocks, work.accelerator.num_processes)
        left = range(self.state.step, len(blocks))
        return [shares(blocks[step], step, self.plan.accumulation, *place) for step in left]

    def _step(self, own: Sequence[Share], stream: Iterator[Tensors], log: MetricsLog) -> bool:
        """Do an optimizer step and log it. Returns whether some process was asked to stop."""
        work, started = self.work, time.perf_counter()
        rate = float(self.schedule.get_last_lr()[0])
        try:
            losses, norm = self._train(own, stream)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(
                f"with {len(own[0].places)} pairs per forward", "give a smaller --batch-size, or a larger machine"
            ) from None
        *values, asked = total(work.accelerator, [*losses.values(), float(work.interrupt.asked)])
        self.state.step += 1
        named = dict(zip(losses, values, strict=True))
        line = {"step": self.state.step, "loss": sum(values), **named, "lr": rate, "grad_norm": norm}
        log(line | {"seconds": time.perf_counter() - started})
        work.progress.step("pretraining", self.state.step, self.plan.steps, f"loss {sum(values):.3f}")
        return asked > 0

    def _train(self, own: Sequence[Share], stream: Iterator[Tensors]) -> tuple[Mapping[str, float], float]:
        """Do an optimizer step. Returns this process's share of the losses by objective, and the gradient's norm."""
        work, losses = self.work, defaultdict[str, float](float)
        parts = zip(islice(stream, len(own)), (share.weight for share in own), strict=True)
        backward(work.accelerator, self.wrapped, parts, len(own), partial(self._loss, losses))
        norm = work.accelerator.clip_grad_norm_(self.wrapped.parameters(), work.spec.train.clip or float("inf"))
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        work.module.after_step(partial(gathered_rows, work.accelerator))
        return losses, float(norm)

    def _loss(self, losses: dict[str, float], part: tuple[Tensors, float]) -> Tensor:
        """The weighted loss of a batch, a scalar; adds the loss of each objective to `losses`."""
        batch, weight = part
        by_name: dict[str, Tensor] = self.wrapped({name: value.to(self._device) for name, value in batch.items()})
        summed = torch.stack(list(by_name.values())).sum()
        if not bool(summed.isfinite()):
            raise VlbenchError(
                f"the loss is not a number ({', '.join(by_name)}): "
                f"{remedy_of_nan(self.work.spec.train.lr, self.work.accelerator.mixed_precision == 'no')}"
            )
        for name, loss in by_name.items():
            losses[name] += float(loss.detach()) * weight
        return summed * weight

    def _save(self) -> None:
        work, states = self.work, gather_random_states(self.work.accelerator)
        broadcast_buffers(work.accelerator, work.network)
        if work.accelerator.is_main_process:
            weights = work.network.state_dict()
            work.checkpoints.save_last(self.state, weights, None, self.optimizer, self.schedule, states)
        work.accelerator.wait_for_everyone()

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.work.accelerator.device
        return device
