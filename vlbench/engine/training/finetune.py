"""Fine-tune a learner by its recipe: reproducible, resumable, and never selected on the reported split."""

from __future__ import annotations

import time
from collections.abc import Callable

from accelerate import Accelerator

from vlbench.core.errors import VlbenchError, remedy_of_nan
from vlbench.core.examples import Examples
from vlbench.core.progress import Progress
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.runtime.randomness import random_state, restore_random_state
from vlbench.engine.training.checkpoint import Best, Checkpoints, Kept, TrainState, Weights
from vlbench.engine.training.collectives import (
    broadcast_buffers,
    check_same_step,
    gather_random_states,
    seed_by_rank,
    total,
)
from vlbench.engine.training.lora import merged_state, remove_adapters
from vlbench.engine.training.plan import Conduct, Plan
from vlbench.engine.training.sharding import ShardedOptimizer, ShardedWeights
from vlbench.engine.training.steps import Steps, Trained
from vlbench.metrics.direction import MetricValue

Select = Callable[[Learner], MetricValue]
"""Measures the main metric of a learner on the selection split, with its direction."""

Log = Callable[[dict[str, float | int | str]], None]

SAVE_SECONDS = 600.0
"""The longest time between two saved states."""


class Finetuning:
    """One training of a learner on examples; `run` trains from the last saved step to the end.

    Every process of the accelerator does the same steps, each with its share of the rows; rank 0 writes.
    """

    def __init__(
        self,
        learner: Learner,
        examples: Examples,
        plan: Plan,
        accelerator: Accelerator,
        checkpoints: Checkpoints,
        seed: int,
        conduct: Conduct,
    ) -> None:
        self.learner, self.plan, self.accelerator = learner, plan, accelerator
        self.checkpoints, self.seed, self.conduct = checkpoints, seed, conduct
        self.trained = Trained.prepared(learner, examples, plan, accelerator, conduct)
        self.steps = Steps(self.trained, examples, plan, accelerator, seed, conduct)
        self.state = TrainState()
        self._saved, self._saved_at = 0, time.monotonic()
        self._stops = self._due = False

    def run(self, select: Select | None, log: Log, progress: Progress, interrupt: Interrupt, what: str) -> TrainState:
        """Train to the last step. With `select` the learner ends up with the best weights, else with the last ones.

        what: names the training where progress is shown.

        Raises:
            Interrupted: the user asked to stop; the state is saved first.
            VlbenchError: the loss is not a number, the message names the step; memory runs out (exit 9).
        """
        self._resume(progress, what)
        try:
            self._train(select, log, progress, interrupt, what)
        except Interrupted:
            self._save()
            raise
        if self.state.best is None:
            self.state.best = Best(self.plan.steps, "plain", None)
            self._save_best(self._whole(self.trained.learner))
            self._save()
        remove_adapters(self.learner)
        self.checkpoints.load_best(self.learner)
        return self.state

    def _train(self, select: Select | None, log: Log, progress: Progress, interrupt: Interrupt, what: str) -> None:
        self.steps.begin(self.state.step, self.state.accumulation, progress)
        self.trained.wrapped.train()
        self._select_if_due(select, log, progress, what)
        alone = self.accelerator.num_processes == 1
        while self.state.step < self.plan.steps:
            if self._stops or (alone and interrupt.asked):  # several processes must stop after the same step
                raise Interrupted
            self._step(log, progress, interrupt, what)
            if self._due or self.state.step - self._saved >= self.conduct.save_every:
                self._save()
            self._select_if_due(select, log, progress, what)

    def _step(self, log: Log, progress: Progress, interrupt: Interrupt, what: str) -> None:
        """Do one step, log it, and let the processes agree whether to stop or save before the next one."""
        started = time.perf_counter()
        rate = float(self.trained.schedule.get_last_lr()[0])
        loss, norm = self.steps.do(progress)
        late = self.accelerator.is_main_process and time.monotonic() - self._saved_at > SAVE_SECONDS
        loss, asked, due = total(self.accelerator, [loss, float(interrupt.asked), float(late)])
        self._stops, self._due = asked > 0, due > 0
        self.state.step += 1
        if not loss == loss:
            raise VlbenchError(
                f"the loss is not a number at step {self.state.step}: "
                f"{remedy_of_nan(self.plan.recipe.lr, self.accelerator.mixed_precision == 'no')}"
            )
        seconds = time.perf_counter() - started
        log({"step": self.state.step, "loss": loss, "lr": rate, "grad_norm": norm, "seconds": round(seconds, 4)})
        progress.step(what, self.state.step, self.plan.steps, f"loss {loss:.3f}")

    def _select_if_due(self, select: Select | None, log: Log, progress: Progress, what: str) -> None:
        """Select at the plan's steps, once each; a run that is interrupted while selecting repeats the selection."""
        step = self.state.step
        if select is not None and step in self.plan.evaluate_at and self.state.selected_at < step:
            before = random_state()
            try:
                self._select(select, log, progress, what)
            except Interrupted:
                restore_random_state(before)  # some models draw random numbers at inference, and will do so again
                raise
            self.state.selected_at = step
            self._save()

    def _select(self, select: Select, log: Log, progress: Progress, what: str) -> None:
        """Measure the plain weights and, if there is one, their moving average; keep the best so far."""
        candidates: list[tuple[Weights, Learner]] = [("plain", self.trained.learner)]
        if self.trained.averaged is not None:
            candidates.append(("ema", self.trained.averaged))
        for weights, candidate in candidates:
            broadcast_buffers(self.accelerator, candidate)
            learner = self._whole(candidate)
            measured, step, best = select(learner), self.state.step, self.state.best
            log({"step": step, "weights": weights, "selection": measured.value})
            progress.say(f"{what}, step {step}: {measured.value:.2f} on the selection split ({weights} weights)")
            if measured.is_better_than(best.value if best else None):
                self.state.best = Best(step, weights, measured.value)
                self._save_best(learner)
        self.trained.wrapped.train()

    def _whole(self, learner: Learner) -> Learner:
        """`learner`, or where it is sharded the given learner with its weights, which can be evaluated and saved."""
        if not self.conduct.fsdp:
            return learner
        self.learner.load_state_dict(ShardedWeights(learner).state_dict())
        return self.learner.to(self.accelerator.device)

    def _save_best(self, learner: Learner) -> None:
        plain = learner is self.trained.learner and not self.plan.recipe.lora_rank
        weights = self.accelerator.get_state_dict(self.trained.wrapped) if plain else merged_state(learner)
        if self.accelerator.is_main_process:
            self.checkpoints.write_best(weights)
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        self.state.accumulation = self.steps.accumulation if self.conduct.auto_batch else None
        states = gather_random_states(self.accelerator)
        learner, average, optimizer = self._kept()
        sharded, averaged = self.conduct.fsdp, None if average is None else average.state_dict()
        weights = learner.state_dict() if sharded else self.accelerator.get_state_dict(self.trained.wrapped)
        kept = weights, averaged, optimizer.state_dict()
        if self.accelerator.is_main_process:
            self.checkpoints.save_last(self.state, *kept, self.trained.schedule, states)
        self.accelerator.wait_for_everyone()
        self._saved, self._saved_at = self.state.step, time.monotonic()

    def _kept(self) -> tuple[Kept, Kept | None, Kept]:
        """The learner, its moving average and the optimizer, to be saved and loaded as whole tensors."""
        trained, averaged = self.trained, self.trained.averaged
        if not self.conduct.fsdp:
            return trained.learner, averaged, trained.optimizer
        average = None if averaged is None else ShardedWeights(averaged)
        return ShardedWeights(trained.learner), average, ShardedOptimizer(trained.optimizer)

    def _resume(self, progress: Progress, what: str) -> None:
        rank = self.accelerator.process_index
        seed_by_rank(self.accelerator, self.seed)
        state = self.checkpoints.load_last(*self._kept(), self.trained.schedule, rank)
        check_same_step(self.accelerator, state.step if state else -1)
        if state is not None:
            self.state, self._saved = state, state.step
            progress.say(f"{what}: resuming after step {state.step} of {self.plan.steps}")
