"""The optimizer steps of a finetuning: each process with its shares, smaller ones where memory does not suffice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vlbench.core.errors import is_out_of_memory
from vlbench.core.examples import Example
from vlbench.core.progress import Progress
from vlbench.engine.answering.batches import Batch, check_changes, loader, training_blocks
from vlbench.engine.answering.learner import Learner
from vlbench.engine.answering.prompts import PromptBatch, PromptBatches
from vlbench.engine.runtime.memory import Undo, fits, heaviest, out_of_memory, release
from vlbench.engine.training.lora import add_adapters
from vlbench.engine.training.optimizer import make_optimizer, make_schedule
from vlbench.engine.training.plan import Conduct, Plan, training_units
from vlbench.engine.training.recompute import recompute_activations
from vlbench.engine.training.shares import Share, TrainingBatches, shares
from vlbench.engine.training.step import backward, total
from vlbench.heads.generate import GenerateHead
from vlbench.models.layers.momentum import MomentumCopy

Input = tuple[Batch | PromptBatch, float]
"""What one forward takes, and its loss's share in the step."""


@dataclass(frozen=True)
class Trained:
    """A learner, as it is wrapped to be trained over processes, with all that a step changes."""

    learner: Learner
    wrapped: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    average: MomentumCopy[Learner] | None

    @classmethod
    def prepared(cls, learner: Learner, plan: Plan, accelerator: Accelerator, conduct: Conduct) -> Trained:
        """Move it to its device and wrap it."""
        if plan.recipe.lora_rank:
            add_adapters(learner.backbone, plan.recipe.lora_rank)
        learner = learner.to(accelerator.device)
        optimizer = make_optimizer(learner, learner.parts[0], plan.recipe)
        schedule = make_schedule(optimizer, plan.steps, plan.recipe)
        average = None if plan.recipe.ema is None else MomentumCopy(learner, plan.recipe.ema)
        if conduct.activation_checkpointing:
            recompute_activations(learner)
        wrapped, optimizer = accelerator.prepare(learner, optimizer)
        return cls(learner, wrapped, optimizer, schedule, average)


class Steps:
    """`do` does the next step; `begin` says which that is and how many forward passes make one."""

    def __init__(
        self,
        trained: Trained,
        examples: Sequence[Example[Any]],
        plan: Plan,
        accelerator: Accelerator,
        seed: int,
        conduct: Conduct,
    ) -> None:
        self.trained, self.examples, self.plan = trained, examples, plan
        self.accelerator, self.seed, self.conduct = accelerator, seed, conduct
        self.blocks = training_blocks(training_units(plan.recipe, examples), plan.batch_size, plan.steps, seed)
        self.accumulation = plan.accumulation
        self.step = 0
        self._stream: Iterator[Batch | PromptBatch] = iter(())

    def begin(self, step: int, accumulation: int | None, progress: Progress) -> None:
        """Go on after so many steps. accumulation: as it was found before; None finds it where that is asked for.

        Raises:
            VlbenchError: exit 9, a single example is too much.
        """
        self.step = step
        self.accumulation = accumulation or self.plan.accumulation
        if self.conduct.auto_batch and accumulation is None:
            self._try(progress)
        self._open()

    def do(self, progress: Progress) -> tuple[float, float]:
        """One optimizer step: the mean loss of its examples, of this process's share of them, and the gradient's norm.

        With `auto_batch` a step that memory does not suffice for is done again with smaller forward passes.

        Raises:
            VlbenchError: exit 9, memory does not suffice.
        """
        while True:
            undo = Undo(self.trained.learner) if self.conduct.auto_batch else None
            try:
                return self._done()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._smaller(undo, progress)

    def _done(self) -> tuple[float, float]:
        trained, losses, own = self.trained, list[float](), self._shares(self.step)
        parts = zip(islice(self._stream, len(own)), (share.weight for share in own), strict=True)
        backward(self.accelerator, trained.wrapped, parts, len(own), partial(self._loss, losses))
        clip = self.plan.recipe.clip or float("inf")
        norm = self.accelerator.clip_grad_norm_(trained.wrapped.parameters(), clip)
        trained.optimizer.step()
        trained.schedule.step()
        trained.optimizer.zero_grad(set_to_none=True)
        if trained.average is not None:
            trained.average.update(trained.learner)
        self.step += 1
        return sum(losses), float(norm)

    def _loss(self, losses: list[float], one: Input) -> Tensor:
        batch, weight = one
        loss: Tensor = self.trained.wrapped(batch.to(self.accelerator.device)).loss * weight
        losses.append(float(loss.detach()))
        return loss

    def _shares(self, step: int) -> list[Share]:
        place = self.accelerator.process_index, self.accelerator.num_processes
        return shares(self.blocks[step], step, self.accumulation, *place)

    def _open(self) -> None:
        """Begin to prepare what is left to train on, with nothing left of earlier preparations."""
        left = [share for step in range(self.step, len(self.blocks)) for share in self._shares(step)]
        self._stream = loader(self._prepared(left), self.conduct.workers, self.accelerator.device)

    def _prepared(self, of: Sequence[Share]) -> TrainingBatches | PromptBatches:
        recipe, learner = self.plan.recipe, self.trained.learner
        augment, scales = recipe.augment == "randaugment", recipe.scales
        if isinstance(learner.head, GenerateHead):
            check_changes(learner.backbone, augment, scales)
            return PromptBatches(self.examples, [share.rows for share in of], *learner.writing, learned=True)
        return TrainingBatches(self.examples, of, *learner.parts, f"{self.seed}/negatives", augment, scales)

    def _try(self, progress: Progress) -> None:
        """Halve forward passes until one over the heaviest examples fits, on all processes."""
        rows = heaviest(self.examples, self.plan.batch_size)
        while sum(total(self.accelerator, [float(not self._fits(rows[: self._most]))])):
            self._halve()
        progress.say(f"{self._most} examples per forward, {self.accumulation} per optimizer step and process")

    def _fits(self, rows: Sequence[int]) -> bool:
        learner = self.trained.learner

        def work() -> None:
            batch = self._prepared([Share(0, tuple(rows), tuple(range(len(rows))), 1.0)])[0]
            with self.accelerator.autocast():
                loss = learner(batch.to(self.accelerator.device)).loss
            self.accelerator.backward(loss)

        learner.train()
        return fits(learner, work, self.accelerator.num_processes)

    def _smaller(self, undo: Undo | None, progress: Progress) -> None:
        """Make the step as if it had not been begun, and smaller."""
        self.trained.optimizer.zero_grad(set_to_none=True)
        self._stream = iter(())
        release()
        if undo is None or self.accelerator.num_processes > 1:
            raise out_of_memory(
                f"at step {self.step + 1} with {self._most} examples per forward",
                "the same command with --batch-size auto finds what fits"
                if undo is None
                else f"go on with --set train.accumulation={2 * self.accumulation}",
            )
        undo()
        before = self._most
        self._halve()
        self._open()
        progress.say(f"out of memory at step {self.step + 1}: {self._most} examples per forward instead of {before}")

    def _halve(self) -> None:
        if self._most == 1:
            raise out_of_memory(
                "with a single example per forward",
                "use --activation-checkpointing, --dtype bfloat16, a smaller --size or a machine with more memory",
            )
        self.accumulation *= 2

    @property
    def _most(self) -> int:
        """Examples of the largest forward."""
        parts = self.accumulation * int(self.accelerator.num_processes)
        return -(-self.plan.batch_size // parts)
