"""Finetune a learner by its recipe: seeded, selected on a split that is never the reported one, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch.utils.data import Dataset

from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example
from vlbench.core.progress import Progress
from vlbench.engine.batches import Batch, Batches, check_augments, loader, micro_blocks, related, training_blocks
from vlbench.engine.checkpoint import Best, Checkpoints, TrainState, Weights
from vlbench.engine.interrupt import Interrupt, Interrupted
from vlbench.engine.learner import Learner
from vlbench.engine.lora import add_adapters, remove_adapters
from vlbench.engine.optimizer import make_optimizer, make_schedule, needed
from vlbench.engine.prompts import PromptBatch, PromptBatches
from vlbench.heads.generate import GenerateHead
from vlbench.models.layers.momentum import MomentumCopy

Select = Callable[[Learner], float]
"""The main metric of a learner on the selection split, in percent."""

Log = Callable[[dict[str, float | int | str]], None]


@dataclass(frozen=True)
class Plan:
    """The recipe with nothing left open. accumulation: forward passes per optimizer step."""

    recipe: Recipe
    steps: int
    batch_size: int
    accumulation: int
    evaluate_at: frozenset[int]


def make_plan(recipe: Recipe, examples: int) -> Plan:
    """Count the steps of a recipe over `examples` training examples; `steps` wins over `epochs`."""
    batch_size = int(needed(recipe.batch_size, "batch_size"))
    per_epoch = -(-examples // batch_size)
    steps = recipe.steps or per_epoch * int(needed(recipe.epochs, "epochs"))
    evaluations = recipe.evaluations or max(1, steps // per_epoch)
    at = frozenset(round(steps * (number + 1) / evaluations) for number in range(evaluations))
    return Plan(recipe, steps, batch_size, recipe.accumulation or 1, at)


class Finetuning:
    """One training run of a learner over examples; `run` goes from the last saved step to the end."""

    def __init__(
        self,
        learner: Learner,
        examples: Sequence[Example[Any]],
        plan: Plan,
        accelerator: Accelerator,
        checkpoints: Checkpoints,
        seed: int,
        workers: int,
    ) -> None:
        self.plan = plan
        self.accelerator = accelerator
        self.checkpoints = checkpoints
        self.examples = examples
        self.workers = workers
        if plan.recipe.lora_rank:
            add_adapters(learner.backbone, plan.recipe.lora_rank)
        self.learner = learner.to(accelerator.device)
        self.optimizer = make_optimizer(self.learner, self.learner.parts[0], plan.recipe)
        self.schedule = make_schedule(self.optimizer, plan.steps, plan.recipe)
        ema = plan.recipe.ema
        self.average = None if ema is None else MomentumCopy(self.learner, ema)
        self.wrapped, self.optimizer = accelerator.prepare(self.learner, self.optimizer)
        together = plan.recipe.batches == "related"
        units = related(examples, plan.batch_size) if together else [[row] for row in range(len(examples))]
        self.blocks = training_blocks(units, plan.batch_size, plan.steps, seed)
        self.seed = seed
        self.state = TrainState()

    def run(self, select: Select | None, log: Log, progress: Progress, interrupt: Interrupt, what: str) -> TrainState:
        """Train to the last step. With `select` the best weights end up in the learner, else the last ones.

        Raises:
            Interrupted: asked to stop; the state is saved first.
            VlbenchError: the loss is not a number, naming the step.
        """
        self._resume(progress, what)
        try:
            self._train(select, log, progress, interrupt, what)
        except Interrupted:
            self._save()
            raise
        if self.state.best is None:
            self.state.best = Best(self.plan.steps, "plain", None)
            self.checkpoints.save_best(self.learner)
            self._save()
        remove_adapters(self.learner)
        self.checkpoints.load_best(self.learner)
        return self.state

    def _train(self, select: Select | None, log: Log, progress: Progress, interrupt: Interrupt, what: str) -> None:
        blocks, parts = self.blocks[self.state.step :], self.plan.accumulation
        stream = loader(self._batches(micro_blocks(blocks, parts)), self.workers, self.accelerator.device)
        self.wrapped.train()
        self._select_if_due(select, log, progress, what)
        for block in blocks:
            interrupt.check()
            started = time.perf_counter()
            rate = float(self.schedule.get_last_lr()[0])
            loss, norm = self._step([next(stream) for _ in range(min(parts, len(block)))], len(block))
            self.state.step += 1
            if not loss == loss:
                raise VlbenchError(
                    f"the loss is not a number at step {self.state.step}: lower --lr ({self.plan.recipe.lr}) or use "
                    f"--dtype float32"
                )
            seconds = time.perf_counter() - started
            log({"step": self.state.step, "loss": loss, "lr": rate, "grad_norm": norm, "seconds": round(seconds, 4)})
            progress.step(what, self.state.step, self.plan.steps, f"loss {loss:.3f}")
            self._select_if_due(select, log, progress, what)

    def _batches(self, micro: Sequence[Sequence[int]]) -> Dataset[Batch | PromptBatch]:
        """What is left to train on, a forward pass each."""
        augment = self.plan.recipe.augment == "randaugment"
        if isinstance(self.learner.head, GenerateHead):
            if augment:
                check_augments(self.learner.backbone)
            return PromptBatches(self.examples, micro, *self.learner.writing, learned=True)
        parts = self.plan.accumulation
        return Batches(
            self.examples,
            micro,
            *self.learner.parts,
            chance=f"{self.seed}/negatives",
            first=sum(min(parts, len(block)) for block in self.blocks[: self.state.step]),
            augment=augment,
        )

    def _step(self, micro: Sequence[Batch | PromptBatch], size: int) -> tuple[float, float]:
        """One optimizer step over the micro-batches of `size` examples: the mean loss and the gradient's norm."""
        total = 0.0
        for number, batch in enumerate(micro):
            last = number == len(micro) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                with self.accelerator.autocast():
                    loss = self.wrapped(batch.to(self.accelerator.device)).loss * (len(batch.ids) / size)
                self.accelerator.backward(loss)
                total += float(loss.detach())
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.plan.recipe.clip or float("inf"))
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.learner)
        return total, float(norm)

    def _select_if_due(self, select: Select | None, log: Log, progress: Progress, what: str) -> None:
        """Select at the plan's steps, once each: a run stopped while selecting does it again when it goes on."""
        step = self.state.step
        if select is not None and step in self.plan.evaluate_at and self.state.selected_at < step:
            self._select(select, log, progress, what)
            self.state.selected_at = step
            self._save()

    def _select(self, select: Select, log: Log, progress: Progress, what: str) -> None:
        """Measure the plain weights and, beside them, their average; keep the best seen."""
        candidates: list[tuple[Weights, Learner]] = [("plain", self.learner)]
        if self.average is not None:
            candidates.append(("ema", self.average.module))
        for weights, learner in candidates:
            value = select(learner)
            log({"step": self.state.step, "weights": weights, "selection": value})
            progress.say(f"{what}, step {self.state.step}: {value:.2f} on the selection split ({weights} weights)")
            best = self.state.best
            if best is None or best.value is None or value > best.value:
                self.state.best = Best(self.state.step, weights, value)
                self.checkpoints.save_best(learner)
        self.wrapped.train()

    def _save(self) -> None:
        self.checkpoints.save_last(self.state, self.learner, self._averaged, self.optimizer, self.schedule)

    @property
    def _averaged(self) -> Learner | None:
        return self.average.module if self.average is not None else None

    def _resume(self, progress: Progress, what: str) -> None:
        state = self.checkpoints.load_last(self.learner, self._averaged, self.optimizer, self.schedule)
        if state is not None:
            self.state = state
            progress.say(f"{what}: resuming after step {state.step} of {self.plan.steps}")
