"""`--dry-run`: the plan of a run, its amounts of work, and an estimate of its time from a few batches.

Only caches are written. Rates are measured at the batch size of the run, or at one that takes about a second; loading,
checkpoints and scoring are not included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from vlbench.core.backbone import Fitted
from vlbench.core.batch import whole_block
from vlbench.core.modes import MODES
from vlbench.core.progress import Progress
from vlbench.core.spec import RunSpec
from vlbench.core.splits import joined
from vlbench.engine.batching.batches import training_blocks
from vlbench.engine.build import build_learner, load_initial_weights, lower_precision, make_evaluator
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
    """A part of the run. amount: of work, in `unit`, of all processes together. rate: units per second of one process.

    processes: how many share the work.
    """

    name: str
    amount: int
    unit: str
    rate: float
    processes: int

    @property
    def seconds(self) -> float:
        """The estimated duration."""
        return self.amount / (self.rate * self.processes)


@dataclass(frozen=True)
class DryRun:
    """The plan of a run and its estimate.

    splits: use, name and size of the train, select and report splits. phases: in order, without controls.
    """

    job: Job
    splits: tuple[tuple[str, str, int], ...]
    weights: str
    parameters: int
    device: str
    phases: tuple[Phase, ...]


def dry_run(spec: RunSpec, progress: Progress, processes: int = 1) -> DryRun:
    """Plan the run, build its model, and time a few batches. processes: how many will share the work.

    Raises:
        VlbenchError: any that the run itself would raise before its first batch.
    """
    job = plan(spec, progress)
    spec = job.spec
    accelerator = make_accelerator(spec.device, job.arithmetic, job.threads, spec.matmul_precision)
    seed_everything(spec.seed)
    # No more images are opened, and regions extracted, than one batch takes.
    most = max(spec.eval_batch_size, int(spec.train.batch_size or 1))
    few = replace(job, train=job.train[:most], select=job.select[:most], report=job.report[:most])
    resources = make_resources(replace(resource_spec(few), text_examples=job.train), progress)
    learner = build_learner(job, resources)
    loaded = load_initial_weights(learner, job, resources)
    if loaded is None and few.train and isinstance(learner.backbone, Fitted):
        learner.backbone.fit(unique_refs(few.train))
    lower_precision(learner, job)
    learner.to(accelerator.device)
    return DryRun(
        job=job,
        splits=(
            ("train", joined(spec.train_split), len(job.train)),
            ("select", str(spec.select_on), len(job.select)),
            ("report", str(spec.split), len(job.report)),
        ),
        weights=summary(loaded) if loaded else "weights: none, trained from scratch",
        parameters=sum(parameter.numel() for parameter in learner.parameters()),
        device=accelerator.device.type,
        phases=tuple(_Measurement(learner, job, few, accelerator, processes, progress).phases()),
    )


@dataclass(frozen=True)
class _Measurement:
    """few: the job with as many examples per split as one batch takes."""

    learner: Learner
    job: Job
    few: Job
    accelerator: Accelerator
    processes: int
    progress: Progress

    def phases(self) -> Iterator[Phase]:
        """The parts of the run; training is first but measured last, since it leaves gradients."""
        job, facts, evaluator = self.job, MODES[self.job.spec.mode], make_evaluator(self.job)
        answering = self._answering_rate()
        trained, amount = self._training() if facts.trains_backbone else (None, 0)
        if trained:
            size = -(-trained.batch_size // trained.accumulation)
            rate = self._rate(self._train, min(size, len(self.few.train)))
            yield Phase("finetune", amount, "examples", rate, self.processes)
        elif facts.trains:
            yield Phase("encode", len(job.train), "examples", answering, self.processes)
        if job.select:
            # Averaged weights are evaluated besides the plain ones.
            times = len(trained.evaluate_at) * (1 if trained.recipe.ema is None else 2) if trained else 1
            amount, unit = evaluator.work(job.select)
            yield Phase("select", times * amount, unit, answering, self.processes)
        yield Phase("report", *evaluator.work(job.report), answering, self.processes)

    def _training(self) -> tuple[Plan, int]:
        """The plan, and the number of examples of all steps, some of which are not full."""
        recipe, seed = self.job.spec.train, self.job.spec.seed
        units = training_units(recipe, self.job.train)
        images = self.learner.head.contrasted_images(self.job.train)
        trained = make_plan(recipe, units, seed, images)
        return trained, sum(map(len, training_blocks(units, trained.batch_size, trained.steps, seed, images)))

    def _answering_rate(self) -> float:
        """Examples, or pairs of a gallery, answered per second."""
        evaluator, examples = make_evaluator(self.job), self.few.report
        self.learner.eval()

        def answer(size: int) -> None:
            pace = Pace(self.accelerator, size, 0, self.progress, Interrupt(), "measuring")
            pace = replace(pace, records_errors=self.job.spec.on_error == "record")
            evaluator.run_batch(self.learner, examples, size, pace)

        return self._rate(answer, evaluator.max_batch(examples))

    def _train(self, size: int) -> None:
        """A forward and a backward pass over `size` training examples."""
        learner, examples = self.learner, self.few.train
        learner.train()
        batch = learner.head.collate(examples, range(size), learner.model, whole_block(range(size), "rehearsal"))
        is_cut = self.processes * (self.job.spec.train.accumulation or 1) > 1
        if is_cut and learner.head.contrasted_images(examples) is not None:
            with torch.no_grad(), self.accelerator.autocast():
                learner(batch.to(self.accelerator.device), embeds=True)  # each part of a cut step is embedded twice
        with self.accelerator.autocast():
            loss = learner(batch.to(self.accelerator.device)).loss
        self.accelerator.backward(loss)
        learner.zero_grad(set_to_none=True)

    def _rate(self, work: Callable[[int], None], most: int) -> float:
        """Units per second, of the largest tried batch: sizes double up to `most`, or until one takes a second."""
        size, seconds = 0, 0.0
        while size < most and seconds < ENOUGH:
            size = min(most, max(1, 2 * size))
            for _ in range(2):  # the first pass warms up
                started = time.perf_counter()
                work(size)
                if self.accelerator.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - started
        return size / seconds
