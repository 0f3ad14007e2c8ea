"""The optimizer steps of a finetuning: each process with its shares, smaller ones where memory does not suffice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vlbench.core.batch import Batch
from vlbench.core.errors import VlbenchError, is_out_of_memory
from vlbench.core.examples import Examples
from vlbench.core.progress import Progress
from vlbench.engine.batching.batches import Batches, loader, sequential_blocks, training_blocks
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.memory import Undo, fits, heaviest, out_of_memory, release
from vlbench.engine.training.activation_checkpointing import recompute_activations
from vlbench.engine.training.batchnorm import calibrate_batch_norms, check_rows, never_ran, synchronise_batch_norms
from vlbench.engine.training.collectives import backward, same_buffers, total
from vlbench.engine.training.contrast import Part, contrast
from vlbench.engine.training.lora import add_adapters
from vlbench.engine.training.micro_batches import Share, gathered_places, shares, training_batches
from vlbench.engine.training.optimizer import make_optimizer, make_schedule
from vlbench.engine.training.plan import Conduct, Plan, training_units
from vlbench.models.layers.momentum import MomentumCopy

CALIBRATED_ON, CALIBRATED_AT_ONCE = 256, 32
"""Training examples whose statistics batch norms begin with where no weights bring any, and examples per forward."""
Input = tuple[Batch, float]
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
        if plan.recipe.batch_norm == "live":
            _make_live(learner, accelerator)
        optimizer = make_optimizer(learner, learner.backbone, plan.recipe)
        schedule = make_schedule(optimizer, plan.steps, plan.recipe)
        average = None if plan.recipe.ema is None else MomentumCopy(learner, plan.recipe.ema)
        if conduct.activation_checkpointing:
            recompute_activations(learner)
        wrapped, optimizer = accelerator.prepare(learner, optimizer)
        return cls(learner, wrapped, optimizer, schedule, average)


def _make_live(learner: Learner, accelerator: Accelerator) -> None:
    """Let batch norms normalise by the batch, of all processes.

    Raises:
        VlbenchError: the model has no batch norm.
    """
    if not learner.batch_norms():
        raise VlbenchError(
            f"train.batch_norm live is for models with batch norms, and {type(learner.backbone).__name__} has none: "
            f"leave it out"
        )
    learner.live_batch_norm = True
    synchronise_batch_norms(learner, accelerator)


class Steps:
    """`do` does the next step; `begin` says which that is and how many forward passes make one."""

    def __init__(
        self,
        trained: Trained,
        examples: Examples,
        plan: Plan,
        accelerator: Accelerator,
        seed: int,
        conduct: Conduct,
    ) -> None:
        self.trained, self.examples, self.plan = trained, examples, plan
        self.accelerator, self.seed, self.conduct = accelerator, seed, conduct
        self.images = trained.learner.head.contrasted_images(examples)
        units = training_units(plan.recipe, examples)
        self.blocks = training_blocks(units, plan.batch_size, plan.steps, seed, self.images)
        if trained.learner.live_batch_norm:
            check_rows(self.blocks, accelerator.num_processes)
        self.accumulation = plan.accumulation
        self.step = 0
        self._stream: Iterator[Batch] = iter(())

    def begin(self, step: int, accumulation: int | None, progress: Progress) -> None:
        """Go on after so many steps. accumulation: as it was found before; None finds it where that is asked for.

        Raises:
            VlbenchError: exit 9, a single example is too much.
        """
        self.step = step
        self.accumulation = accumulation or self.plan.accumulation
        if step == 0 and self._is_uncalibrated():
            self._calibrate()
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
        trained, own = self.trained, self._shares(self.step)
        cut = len(own) * self.accelerator.num_processes > 1
        loss = self._contrasted(own) if self.images is not None and cut else self._added(own)
        clip = self.plan.recipe.clip or float("inf")
        norm = self.accelerator.clip_grad_norm_(trained.wrapped.parameters(), clip)
        trained.optimizer.step()
        trained.schedule.step()
        trained.optimizer.zero_grad(set_to_none=True)
        if trained.average is not None:
            trained.average.update(trained.learner)
        self.step += 1
        return loss, float(norm)

    def _added(self, own: Sequence[Share]) -> float:
        """Gradients of losses that add up over the parts of a step; this process's share of its loss."""
        losses: list[float] = []
        parts = zip(islice(self._stream, len(own)), (share.weight for share in own), strict=True)
        backward(self.accelerator, self.trained.wrapped, parts, len(own), partial(self._loss, losses))
        return sum(losses)

    def _contrasted(self, own: Sequence[Share]) -> float:
        """Gradients of a loss that contrasts all pairs of a step; the loss on the first process, 0 on the others."""
        trained, block = self.trained, self.blocks[self.step]
        batches = islice(self._stream, len(own))
        parts = [Part(batch, share) for batch, share in zip(batches, own, strict=True)]
        order = gathered_places(len(block), self.accumulation, self.accelerator.num_processes)
        targets = trained.learner.head.targets([self.examples[row] for row in block])
        loss = contrast(self.accelerator, trained.learner, trained.wrapped, parts, order, targets)
        return loss if self.accelerator.is_main_process else 0.0

    def _loss(self, losses: list[float], one: Input) -> Tensor:
        batch, weight = one
        loss: Tensor = self.trained.wrapped(batch.to(self.accelerator.device)).loss * weight
        losses.append(float(loss.detach()))
        return loss

    def _is_uncalibrated(self) -> bool:
        """Whether batch norms would normalise by statistics that nothing was ever counted for."""
        learner = self.trained.learner
        frozen = not learner.live_batch_norm and learner.head.is_single_pass
        return frozen and never_ran(learner.batch_norms())

    def _calibrate(self) -> None:
        """Without weights, batch norms take the statistics of the first training examples; processes take the same."""
        learner, rows = self.trained.learner, [row for block in self.blocks for row in block][:CALIBRATED_ON]
        rows = rows[: len(rows) // CALIBRATED_AT_ONCE * CALIBRATED_AT_ONCE or len(rows)]  # batches of one size
        examples = [self.examples[row] for row in rows]
        blocks = sequential_blocks(len(rows), CALIBRATED_AT_ONCE)
        batches = Batches(examples, blocks, learner.model, learner.head)
        stream = loader(batches, self.conduct.workers, self.accelerator.device)
        calibrate_batch_norms(learner, (batch.to(self.accelerator.device) for batch in stream))
        same_buffers(self.accelerator, learner)

    def _shares(self, step: int) -> list[Share]:
        place = self.accelerator.process_index, self.accelerator.num_processes
        return shares(self.blocks[step], step, self.accumulation, *place)

    def _open(self) -> None:
        """Begin to prepare what is left to train on, with nothing left of earlier preparations."""
        left = [share for step in range(self.step, len(self.blocks)) for share in self._shares(step)]
        self._stream = loader(self._prepared(left), self.conduct.workers, self.accelerator.device)

    def _prepared(self, of: Sequence[Share]) -> Batches:
        recipe, learner = self.plan.recipe, self.trained.learner
        augment, scales = recipe.augment == "randaugment", recipe.scales
        return training_batches(self.examples, of, learner, f"{self.seed}/negatives", augment, scales)

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
