"""The optimizer steps of fine-tuning: each process with its micro-batches, smaller ones where memory runs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from vlbench.core.batch import Batch
from vlbench.core.columns import take
from vlbench.core.errors import VlbenchError, is_out_of_memory
from vlbench.core.examples import Examples
from vlbench.core.progress import Progress
from vlbench.engine.batching.batches import Batches, loader, sequential_blocks, training_blocks
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.memory import Undo, fits, heaviest, out_of_memory, release
from vlbench.engine.training.batchnorm import (
    calibrate_batch_norms,
    check_rows,
    have_initial_statistics,
    synchronise_batch_norms,
)
from vlbench.engine.training.collectives import backward, broadcast_buffers, total
from vlbench.engine.training.contrast import Part, contrast
from vlbench.engine.training.lora import add_adapters
from vlbench.engine.training.micro_batches import Share, gathered_places, shares, training_batches
from vlbench.engine.training.optimizer import make_optimizer, make_schedule
from vlbench.engine.training.plan import Conduct, Plan, training_units
from vlbench.models.layers.momentum import MomentumCopy

CALIBRATED_ON, CALIBRATED_AT_ONCE = 256, 32
"""Number of training examples that initialise running statistics where no weights do, and examples per forward pass."""


@dataclass(frozen=True)
class Trained:
    """A learner with everything that a step changes.

    wrapped: the learner as DDP wraps it. average: the moving average of the weights; None without `ema`.
    """

    learner: Learner
    wrapped: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    average: MomentumCopy[Learner] | None

    @classmethod
    def prepared(cls, learner: Learner, plan: Plan, accelerator: Accelerator, conduct: Conduct) -> Trained:
        """Move a learner to its device and wrap it for training."""
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

    @property
    def averaged(self) -> Learner | None:
        """The learner with averaged weights."""
        return None if self.average is None else self.average.module


def _make_live(learner: Learner, accelerator: Accelerator) -> None:
    """Let batch norms normalise by the batch of all processes. Raises VlbenchError if the model has none."""
    if not learner.batch_norms():
        raise VlbenchError(
            f"train.batch_norm live is for models with batch norms, and {type(learner.backbone).__name__} has none: "
            f"leave it out"
        )
    learner.live_batch_norm = True
    synchronise_batch_norms(learner, accelerator)


class Steps:
    """The optimizer steps of a training: `begin` sets the first one, then each call of `do` does the next one."""

    def __init__(
        self, trained: Trained, examples: Examples, plan: Plan, accelerator: Accelerator, seed: int, conduct: Conduct
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
        """Continue after step `step`.

        accumulation: forward passes per step as found before; None tries what fits, if `auto_batch` is set.

        Raises:
            VlbenchError: exit 9, a single example does not fit into memory.
        """
        self.step = step
        self.accumulation = accumulation or self.plan.accumulation
        if step == 0 and self._is_uncalibrated():
            self._calibrate()
        if self.conduct.auto_batch and accumulation is None:
            self._try(progress)
        self._open()

    def do(self, progress: Progress) -> tuple[float, float]:
        """Do one optimizer step; return this process's share of its mean loss, and the norm of the gradient.

        With `auto_batch` a step that runs out of memory is repeated with smaller forward passes.

        Raises:
            VlbenchError: exit 9, memory runs out.
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
        """Add up the gradients of a loss that is a sum over the parts of a step; return this process's share of it."""
        losses: list[float] = []
        parts = zip(islice(self._stream, len(own)), (share.weight for share in own), strict=True)
        backward(self.accelerator, self.trained.wrapped, parts, len(own), partial(self._loss, losses))
        return sum(losses)

    def _contrasted(self, own: Sequence[Share]) -> float:
        """Add up the gradients of a loss that contrasts all pairs of a step; return it on rank 0, and 0 on others."""
        trained, block = self.trained, self.blocks[self.step]
        batches = islice(self._stream, len(own))
        parts = [Part(batch, share) for batch, share in zip(batches, own, strict=True)]
        order = gathered_places(len(block), self.accumulation, self.accelerator.num_processes)
        targets = trained.learner.head.targets(take(self.examples, block))
        loss = contrast(self.accelerator, trained.learner, trained.wrapped, parts, order, targets)
        return loss if self.accelerator.is_main_process else 0.0

    def _loss(self, losses: list[float], batch_and_weight: tuple[Batch, float]) -> Tensor:
        batch, weight = batch_and_weight
        loss: Tensor = self.trained.wrapped(batch.to(self.accelerator.device)).loss * weight
        losses.append(float(loss.detach()))
        return loss

    def _is_uncalibrated(self) -> bool:
        """Whether batch norms would normalise by running statistics that were never updated."""
        learner = self.trained.learner
        frozen = not learner.live_batch_norm and learner.head.is_single_pass
        return frozen and have_initial_statistics(learner.batch_norms())

    def _calibrate(self) -> None:
        """Set running statistics that no weights have set to those of the first training examples, on all processes."""
        learner, rows = self.trained.learner, [row for block in self.blocks for row in block][:CALIBRATED_ON]
        rows = rows[: len(rows) // CALIBRATED_AT_ONCE * CALIBRATED_AT_ONCE or len(rows)]  # batches of one size
        examples = take(self.examples, rows)
        blocks = sequential_blocks(len(rows), CALIBRATED_AT_ONCE)
        batches = Batches(examples, blocks, learner.model, learner.head)
        stream = loader(batches, self.conduct.workers, self.accelerator.device)
        calibrate_batch_norms(learner, (batch.to(self.accelerator.device) for batch in stream))
        broadcast_buffers(self.accelerator, learner)

    def _shares(self, step: int) -> list[Share]:
        place = self.accelerator.process_index, self.accelerator.num_processes
        return shares(self.blocks[step], step, self.accumulation, *place)

    def _open(self) -> None:
        """Start loading the batches of the remaining steps; batches that were prepared before are dropped."""
        left = [share for step in range(self.step, len(self.blocks)) for share in self._shares(step)]
        self._stream = loader(self._prepared(left), self.conduct.workers, self.accelerator.device)

    def _prepared(self, shares: Sequence[Share]) -> Batches:
        recipe, stream = self.plan.recipe, f"{self.seed}/negatives"
        augment = recipe.augment == "randaugment"
        return training_batches(self.examples, shares, self.trained.learner, stream, augment, recipe.scales)

    def _try(self, progress: Progress) -> None:
        """Halve forward passes until one over the examples that need the most memory fits, on all processes."""
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
        """Undo the started step and halve the forward passes."""
        self.trained.optimizer.zero_grad(set_to_none=True)
        self._stream = iter(())
        release()
        if undo is None or self.accelerator.num_processes > 1:
            raise out_of_memory(
                f"at step {self.step + 1} with {self._most} examples per forward",
                "the same command with --batch-size auto finds what fits"
                if undo is None
                else f"resume with --set train.accumulation={2 * self.accumulation}",
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
        """The number of examples of the largest forward pass."""
        parts = self.accumulation * int(self.accelerator.num_processes)
        return -(-self.plan.batch_size // parts)


def recompute_activations(module: nn.Module) -> int:
    """Switch on activation checkpointing in place: activations are recomputed in the backward pass instead of kept.

    Applies to every layer of a ModuleList, except layers with running statistics, which a second pass would update
    again. Networks of transformers use their own implementation. Copies of the module must be made before. Returns the
    number of layers and networks that it is on for. Source: Chen et al. 2016 (arXiv 1604.06174).
    """
    parts = list(module.modules())
    networks = [part for part in parts if isinstance(part, PreTrainedModel) and part.supports_gradient_checkpointing]
    for network in networks:
        # The older name became an alias that warns.
        older = network.gradient_checkpointing_enable
        getattr(network, "activation_checkpointing_enable", older)({"use_reentrant": False})
    inside = {id(part) for network in networks for part in network.modules()}
    stacks = [part for part in parts if isinstance(part, nn.ModuleList) and id(part) not in inside]
    all_layers = [layer for stack in stacks for layer in stack]
    layers = [layer for layer in all_layers if not any(isinstance(part, _BatchNorm) for part in layer.modules())]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return len(networks) + len(layers)
