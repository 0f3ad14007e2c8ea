"""The image-blind control of a run: a trial of its own, after the real one or at once with it in another process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.core.progress import Progress, Silent
from vlbench.core.spec import RunSpec
from vlbench.core.user_code import same_folder
from vlbench.engine.job import Job, plan
from vlbench.engine.jobs import gpu_environments
from vlbench.engine.resources import make_resources, resource_spec
from vlbench.engine.runtime.calls import Call, ParallelCall
from vlbench.engine.runtime.environment import Clock, make_accelerator
from vlbench.engine.runtime.interrupt import Interrupt, Stoppable
from vlbench.engine.training.metrics_log import merge_control
from vlbench.engine.trial import CONTROL, Outcome, Trial, checkpoint_folder
from vlbench.records.folder import RunFolder
from vlbench.records.lock import LOCK_NAME, run_lock


@dataclass(frozen=True)
class ControlResult:
    """What the process of a control returns. seconds: of its phases."""

    outcome: Outcome
    seconds: dict[str, float]


def parallel_control(job: Job, folder: RunFolder, progress: Progress) -> ParallelCall:
    """A process that runs the control of a job from its spec while this one runs the job."""
    spec = job.spec.to_run_spec().model_copy(update={"verify_data": False})  # this process verifies the data
    call = Call(run_control, (spec, folder.path, job.fingerprint), progress)
    return ParallelCall(call, f"the process of the {CONTROL} control", gpu_environments(2, job.spec.device)[1])


def run_control(progress: Progress, spec: RunSpec, folder: Path, fingerprint: str) -> ControlResult:
    """Run the control of the run whose folder and fingerprint these are; another process writes its record.

    Raises:
        DataError: the data or weights have changed since the run began.
        Interrupted: asked to stop; the same command resumes the control.
    """
    job, clock = plan(spec, Silent()), Clock()
    if job.fingerprint != fingerprint:
        raise DataError(f"the data, weights or code of {folder} have changed since the run began: run it again")
    own = checkpoint_folder(RunFolder(folder), CONTROL)
    own.mkdir(parents=True, exist_ok=True)
    # Locked, since this process outlives for a while that of the run, if that is killed.
    with run_lock(own), same_folder(), Interrupt() as interrupt:
        accelerator = make_accelerator(job.spec.device, job.arithmetic, job.threads, job.spec.matmul_precision)
        resources = make_resources(resource_spec(job), Stoppable(Silent(), interrupt))
        real = Trial(job, resources, RunFolder(folder), accelerator, progress, interrupt, clock, own_metrics=True)
        return ControlResult(real.blinded().run(), clock.seconds)


def control_outcome(real: Trial, parallel: ParallelCall | None) -> Outcome:
    """The outcome of a trial's control: of its process, else of a trial that is run here."""
    result = parallel.result(real.interrupt) if parallel else None
    own = RunFolder(checkpoint_folder(real.folder, CONTROL))
    if real.ranks.is_main:  # also of a process that was interrupted in an earlier call
        merge_control(real.folder, own, CONTROL)
        (own.path / LOCK_NAME).unlink(missing_ok=True)
    if parallel is None:
        return real.blinded().run()
    if not isinstance(result, ControlResult):
        raise VlbenchError(f"the control has returned {result!r}", ExitCode.INTERNAL_ERROR)
    real.clock.seconds.update(result.seconds)
    return result.outcome
