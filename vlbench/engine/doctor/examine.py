"""Examine a model on a task, with its real weights, on a few examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vlbench import catalog
from vlbench.core.backbone import Fitted
from vlbench.core.examples import Examples
from vlbench.core.progress import Progress
from vlbench.core.spec import RunSpec
from vlbench.data.cache.scratch import scratch_folder
from vlbench.engine.build import build_learner, load_initial_weights
from vlbench.engine.doctor.checks import Check, Examination
from vlbench.engine.doctor.examined_model import ExaminedModel, choose_candidates, sample_examples
from vlbench.engine.doctor.invariance import check_invariance
from vlbench.engine.doctor.learning import OVERFIT_EXAMPLES, LearningSetup, check_learning
from vlbench.engine.doctor.machine import describe_machine
from vlbench.engine.doctor.processes import check_processes
from vlbench.engine.job import plan
from vlbench.engine.resources import make_resources, resource_spec, unique_refs
from vlbench.engine.runtime.environment import make_accelerator, seed_everything
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class ExaminationSize:
    """The size of an examination.

    examples: compared in each check. steps: of each learning check; 0 leaves these out. processes: whether to compare
    two processes with one.
    """

    examples: int = 64
    steps: int = 300
    processes: bool = True


def examine(spec: RunSpec, extent: ExaminationSize, progress: Progress) -> Examination:
    """Examine the spec's model on its task; all files that it writes are removed again.

    Raises:
        VlbenchError: an error in the spec; exit 6 if weights do not load.
        Interrupted: asked to stop.
    """
    job = plan(_finetune_spec(spec), progress)
    compared, trained = sample_examples(job.report, extent.examples, 0), sample_examples(job.train, OVERFIT_EXAMPLES, 0)
    accelerator = make_accelerator(spec.device, "float32", job.threads)
    material = replace(resource_spec(job), image_examples=[*compared, *trained])
    resources = make_resources(material, progress)
    seed_everything(spec.seed)
    learner = build_learner(job, resources)
    load_report = load_initial_weights(learner, job, resources)
    if load_report is None and isinstance(learner.backbone, Fitted):
        learner.backbone.fit(unique_refs(trained))
    learner.to(accelerator.device)
    model = ExaminedModel(job, learner, accelerator.device, choose_candidates(job, compared))
    checks: list[Check] = []
    with scratch_folder() as folder, Interrupt() as interrupt:
        setup = LearningSetup(model, accelerator, folder, progress, interrupt, extent.steps)
        answers = () if job.task.card.labels else job.labels
        names = {"model": job.card.name, "size": job.size}
        checkpoints = Checkpoints(folder / "whole", resources.words, names, answers)
        for check in _run_checks(setup, compared, trained, checkpoints if extent.processes else None):
            checks.append(check)
            progress.step("examining", len(checks), len(checks) + 1, check.name)
            interrupt.check()
    return Examination(
        machine=describe_machine(),
        model=job.card.name,
        size=job.size,
        task=job.task.card.name,
        source=job.task.source,
        weights=load_report,
        checks=tuple(checks),
    )


def _run_checks(
    setup: LearningSetup, compared: Examples, trained: Examples, checkpoints: Checkpoints | None
) -> Iterator[Check]:
    yield from check_invariance(setup.model, compared, setup.folder)
    if checkpoints is not None:
        yield check_processes(setup.model, checkpoints, len(compared))
    if setup.steps:
        yield from check_learning(setup, trained, compared)


def _finetune_spec(spec: RunSpec) -> RunSpec:
    """The run to examine: it trains on the task's own train split.

    A recipe may train on more, even on the split reported by default; the few examples trained on here need no more.
    """
    train_split = catalog.task_card(spec.task, spec.tasks_dir).train_split
    return spec.model_copy(update={"mode": "finetune", "controls": (), "train_split": train_split})
