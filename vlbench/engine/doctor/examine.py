"""One examination: a model on a task, with its real weights, on few examples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vlbench import catalog
from vlbench.core.backbone import Fitted
from vlbench.core.examples import Examples
from vlbench.core.progress import Progress
from vlbench.core.spec import RunSpec
from vlbench.engine.build import load_initial, new_learner
from vlbench.engine.doctor.invariance import check_invariance
from vlbench.engine.doctor.learning import LEARNED, School, check_learning
from vlbench.engine.doctor.machine import machine
from vlbench.engine.doctor.processes import check_processes
from vlbench.engine.doctor.subject import Subject, candidates_of, chosen
from vlbench.engine.doctor.verdict import Check, Examination
from vlbench.engine.job import plan
from vlbench.engine.resources import make_resources, of_job, unique_refs
from vlbench.engine.runtime.environment import make_accelerator, seed_everything
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class Extent:
    """How much is looked at. examples: asked in each way. steps: of each try at learning; 0 tries none.

    processes: whether two are tried too.
    """

    examples: int = 64
    steps: int = 300
    processes: bool = True


@dataclass(frozen=True)
class _Sample:
    asked: Examples
    learned: Examples


def examine(spec: RunSpec, extent: Extent, progress: Progress) -> Examination:
    """Look at the model that the spec names, on the task that it names; nothing is written but what is removed again.

    Raises:
        VlbenchError: the user's fault in the spec; exit 6 where weights do not load.
        Interrupted: asked to stop.
    """
    job = plan(_finetuning(spec), progress)
    sample = _Sample(chosen(job.report, extent.examples, 0), chosen(job.train, LEARNED, 0))
    accelerator = make_accelerator(spec.device, "float32", job.threads)
    material = replace(of_job(job), seen=[*sample.asked, *sample.learned])
    resources = make_resources(material, progress)
    seed_everything(spec.seed)
    learner = new_learner(job, resources)
    report = load_initial(learner, job, resources)
    if report is None and isinstance(learner.backbone, Fitted):
        learner.backbone.fit(unique_refs(sample.learned))
    learner.to(accelerator.device)
    subject = Subject(job, learner, accelerator.device, candidates_of(job, sample.asked))
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as place, Interrupt() as interrupt:
        school = School(subject, accelerator, Path(place), progress, interrupt, extent.steps)
        answers = () if job.task.card.labels else job.labels
        names = {"model": job.card.name, "size": job.size}
        written = Checkpoints(Path(place) / "whole", resources.words, names, answers) if extent.processes else None
        for check in _checks(school, sample, written):
            checks.append(check)
            progress.step("looking", len(checks), len(checks) + 1, check.name)
            interrupt.check()
    return Examination(
        machine=machine(),
        model=job.card.name,
        size=job.size,
        task=job.task.card.name,
        source=job.task.source,
        weights=report,
        checks=tuple(checks),
    )


def _checks(school: School, sample: _Sample, written: Checkpoints | None) -> Iterator[Check]:
    yield from check_invariance(school.subject, sample.asked, school.folder)
    if written is not None:
        yield check_processes(school.subject, written, len(sample.asked))
    if school.steps:
        yield from check_learning(school, sample.learned, sample.asked)


def _finetuning(spec: RunSpec) -> RunSpec:
    """The run that is looked at: it learns from the task's own train split.

    A recipe may train on more, on what is reported by default too; the few examples that are learned here need none.
    """
    trained_on = catalog.task_card(spec.task, spec.tasks_dir).train_split
    return spec.model_copy(update={"mode": "finetune", "controls": (), "train_split": trained_on})
