"""`--dry-run`: what a run would do, counted, and how long it would take, from a few batches done for the sake of it.

Nothing is written but what the cache keeps anyway. Rates are of forward passes of the batch size asked for, or of what
takes about a second; other work (loading, checkpoints, scoring) is not in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from vlbench.core.backbone import Fitted
from vlbench.core.batch import whole_block
from vlbench.core.examples import Examples
from vlbench.core.modes import MODES
from vlbench.core.progress import Progress
from vlbench.core.spec import RunSpec
from vlbench.core.splits import joined
from vlbench.engine.batching.batches import training_blocks
from vlbench.engine.build import build_learner, load_initial_weights
from vlbench.engine.evaluators.base import Evaluator
from vlbench.engine.evaluators.build import make_evaluator
from vlbench.engine.job import Job, plan
from vlbench.engine.learner import Learner
from vlbench.engine.resources import make_resources, resource_spec, unique_refs
from vlbench.engine.runtime.environment import make_accelerator, seed_everything
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.engine.training.plan import Plan, make_plan, training_units
from vlbench.engine.weights.loading import summary

ENOUGH = 1.0
"""Seconds of a batch after which no larger one is tried."""


@dataclass(frozen=True)
class Phase:
    """A part of the run. amount: how many of `unit` it works through, by all processes together. rate: how many of them
    one process does in a second; processes: how many share the work."""

    name: str
    amount: int
    unit: str
    rate: float
    processes: int

    @property
    def seconds(self) -> float:
        """How long it takes at that rate."""
        return self.amount / (self.rate * self.processes)


@dataclass(frozen=True)
class Rehearsal:
    """splits: train, select and report with their sizes. phases: in the order of the run, controls apart."""

    job: Job
    splits: tuple[tuple[str, str, int], ...]
    weights: str
    parameters: int
    device: str
    phases: tuple[Phase, ...]


def rehearse(spec: RunSpec, progress: Progress, processes: int = 1) -> Rehearsal:
    """Plan the run, build its model, and measure; processes: how many will share the work.

    Raises:
        VlbenchError: whatever the run itself would stop at before its first batch.
    """
    job = plan(spec, progress)
    accelerator = make_accelerator(job.spec.device, job.arithmetic, job.threads)
    seed_everything(job.spec.seed)
    few = replace(job, train=_few(job, job.train), select=_few(job, job.select), report=_few(job, job.report))
    resources = make_resources(replace(resource_spec(few), text_examples=job.train), progress)
    learner = build_learner(job, resources)
    loaded = load_initial_weights(learner, job, resources)
    if loaded is None and few.train and isinstance(learner.backbone, Fitted):
        learner.backbone.fit(unique_refs(few.train))
    learner.to(accelerator.device)
    spec = job.spec
    splits = zip(
        ("train", "select", "report"),
        (joined(spec.train_split), spec.select_on, spec.split),
        (job.train, job.select, job.report),
        strict=True,
    )
    return Rehearsal(
        job=job,
        splits=tuple((use, str(split), len(examples)) for use, split, examples in splits),
        weights=summary(loaded) if loaded else "weights: none, trained from scratch",
        parameters=sum(parameter.numel() for parameter in learner.parameters()),
        device=accelerator.device.type,
        phases=tuple(_Measuring(learner, job, few, accelerator, processes, progress).phases()),
    )


def _few(job: Job, examples: Examples) -> Examples:
    """As many as one batch takes, so that no more pictures are opened or described than that."""
    return examples[: max(job.spec.eval_batch_size, int(job.spec.train.batch_size or 1))]


@dataclass(frozen=True)
class _Measuring:
    learner: Learner
    job: Job
    few: Job
    accelerator: Accelerator
    processes: int
    progress: Progress

    def phases(self) -> Iterator[Phase]:
        """The parts of the run; training comes first and is measured last, since it leaves gradients."""
        job, facts = self.job, MODES[self.job.spec.mode]
        answering = self._answering()
        trained, amount = self._training() if facts.trains_backbone else (None, 0)
        if trained:
            size = -(-trained.batch_size // trained.accumulation)
            rate = self._rate(self._train, min(size, len(self.few.train)))
            yield self._phase("finetune", amount, "examples", rate)
        elif facts.trains:
            yield self._phase("encode", len(job.train), "examples", answering)
        if job.select:
            # The averaged weights are measured beside the plain ones.
            times = len(trained.evaluate_at) * (1 if trained.recipe.ema is None else 2) if trained else 1
            amount, unit = self.evaluator.work(job.select)
            yield self._phase("select", times * amount, unit, answering)
        yield self._phase("report", *self.evaluator.work(job.report), answering)

    @property
    def evaluator(self) -> Evaluator:
        """How the model answers."""
        return make_evaluator(self.job)

    def _training(self) -> tuple[Plan, int]:
        """The plan, and how many examples its steps take, which may fill batches in part only."""
        recipe, seed = self.job.spec.train, self.job.spec.seed
        units = training_units(recipe, self.job.train)
        images = self.learner.head.contrasted_images(self.job.train)
        trained = make_plan(recipe, units, seed, images)
        return trained, sum(map(len, training_blocks(units, trained.batch_size, trained.steps, seed, images)))

    def _phase(self, name: str, amount: int, unit: str, rate: float) -> Phase:
        return Phase(name, amount, unit, rate, self.processes)

    def _answering(self) -> float:
        """Examples, or pairs of a gallery, answered in a second."""
        examples = self.few.report
        self.learner.eval()

        def answer(size: int) -> None:
            pace = Pace(self.accelerator, size, 0, self.progress, Interrupt(), "measuring")
            self.evaluator.try_out(self.learner, examples, size, pace)

        return self._rate(answer, self.evaluator.most_at_once(examples))

    def _train(self, size: int) -> None:
        """A forward and a backward pass of so many training examples."""
        learner, examples = self.learner, self.few.train
        learner.train()
        batch = learner.head.collate(examples, range(size), learner.model, whole_block(range(size), "rehearsal"))
        if learner.head.contrasted_images(examples) is not None and self._is_cut():
            with torch.no_grad(), self.accelerator.autocast():
                learner(batch.to(self.accelerator.device), embeds=True)  # a step in parts embeds each part twice
        with self.accelerator.autocast():
            loss = learner(batch.to(self.accelerator.device)).loss
        self.accelerator.backward(loss)
        learner.zero_grad(set_to_none=True)

    def _is_cut(self) -> bool:
        """Whether an optimizer step takes several forward passes or processes."""
        return self.processes * (self.job.spec.train.accumulation or 1) > 1

    def _rate(self, work: Callable[[int], None], most: int) -> float:
        """How many a second: of growing batches the largest that takes no longer than about a second, or `most`."""
        size, seconds = 0, 0.0
        while size < most and seconds < ENOUGH:
            size = min(most, max(1, 2 * size))
            seconds = self._seconds(work, size)
        return size / seconds

    def _seconds(self, work: Callable[[int], None], size: int) -> float:
        """The second of two passes: the first one warms up."""
        taken = 0.0
        for _ in range(2):
            started = time.perf_counter()
            work(size)
            if self.accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            taken = time.perf_counter() - started
        return taken
