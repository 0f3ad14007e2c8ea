"""Evaluate a model on a task: from a spec to a record, which is returned at once if the run is finished."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TypeAlias, cast

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import captioned
from vlbench.core.progress import Progress, Silent
from vlbench.core.record import RunRecord, ToolInfo
from vlbench.core.spec import RunSpec
from vlbench.core.user_code import same_folder, user_faults
from vlbench.engine.job import Job, plan
from vlbench.engine.runtime.ranks import Ranks, joined
from vlbench.engine.training.atomic_folder import drop_resume_state
from vlbench.records.folder import RunFolder
from vlbench.records.lock import await_lock, run_lock
from vlbench.records.provenance import code_sha256
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples

OpenedRun: TypeAlias = tuple[RunFolder, RunRecord | None]
"""A run's folder, and its record if the run is finished."""


def evaluate(spec: RunSpec, progress: Progress | None = None) -> RunRecord:
    """Fine-tune, predict, score and record, or return the record of the finished run.

    Raises:
        VlbenchError: an error of the user.
        Interrupted: asked to stop; the same spec resumes the run.
    """
    return run(spec, progress)[0]


def run(spec: RunSpec, progress: Progress | None = None, jobs: int = 1, others: int = 0) -> tuple[RunRecord, RunFolder]:
    """`evaluate`, and the folder that holds the record; every rank of a run over several processes gets both.

    jobs: with at least two, a control runs in a process of its own beside the trial; then the module that calls this is
    imported there, as by `multiprocessing`. others: the number of simultaneous trials of other runs, for the record.
    """
    with user_faults(), joined(spec.device, spec.num_processes, progress) as ranks:
        return _run(spec, progress, ranks, jobs, others)


def _run(spec: RunSpec, progress: Progress | None, ranks: Ranks, jobs: int, others: int) -> tuple[RunRecord, RunFolder]:
    progress = progress if progress and ranks.is_main else Silent()
    job = ranks.together(lambda: plan(spec, progress))
    with ExitStack() as locks:
        opened = ranks.together(lambda: _open_run(job, spec.resume, locks) if ranks.is_main else None)
        folder, finished = cast(OpenedRun, ranks.share(opened))
        if finished is not None:
            if ranks.is_main:  # the process that finished it may have been killed before it did this
                drop_resume_state(folder.path)
            progress.say(f"already done{_code_note(finished.tool)}: this is the record of that run")
            return finished, folder
        from vlbench.engine.execute import execute  # the first import of torch

        # The model may be code that calls os.chdir; the folder that is returned is the one that the user named.
        with same_folder():
            return execute(job, RunFolder(folder.path.absolute()), progress, ranks, jobs, others), folder


def _code_note(then: ToolInfo) -> str:
    """A note with the remedy if the files of vlbench have changed since or during a run; else empty."""
    now = code_sha256()
    if then.code_sha256 in ("", now) and not then.earlier_code:
        return ""
    codes = ", then ".join(code[:8] for code in (*then.earlier_code, then.code_sha256))
    return f" by other code of vlbench ({codes}; now {now[:8]}), --no-resume runs it again"


def _open_run(job: Job, resume: bool, locks: ExitStack) -> OpenedRun:
    """Open the run's folder, locked until the stack is closed, with the record if the run is finished.

    Of a finished run nothing is written, so its folder may be read-only, or its disk full.
    """
    folder = RunFolder.of(job.spec, job.fingerprint, job.card.name)
    try:
        RunFolder.create(job.spec, job.fingerprint, job.card.name)
        locks.enter_context(run_lock(folder.path))
        for control in folder.path.glob("controls/*/"):
            await_lock(control)  # its process is stopping, since that of the run was killed
    except VlbenchError as error:
        finished = _read_finished(job, folder) if resume and error.exit_code == ExitCode.DATA else None
        if finished is None:
            raise
        return folder, finished
    if not resume:
        folder.clear()
    return folder, _read_finished(job, folder)


def _read_finished(job: Job, folder: RunFolder) -> RunRecord | None:
    """The record of a finished run whose samples are complete; None if the run is not finished.

    Raises:
        VlbenchError: samples or ranks are missing, damaged or incomplete, or hold errors that are not accepted.
    """
    record = folder.read_record()
    if record is None or record.status != "done":
        return None
    if record.unanswered and job.spec.on_error == "stop":
        raise VlbenchError(
            f"{folder.path} is finished, and {record.unanswered:,} of its examples could not be answered: accept that "
            f"with --on-error record, or run it again with --no-resume"
        )
    if job.kind.ranks_gallery:
        read_rankings(folder.ranks, captioned(job.report))
    samples = read_samples(folder.samples)
    rows = int((samples["control"] == "").sum())
    if rows != len(job.report):
        raise VlbenchError(
            f"{folder.samples} holds {rows} of {len(job.report)} predictions: rerun with --no-resume to make it again"
        )
    return record
