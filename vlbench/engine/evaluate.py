"""The one verb: what was asked for becomes a record. A finished run is not done twice."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TypeAlias, cast

from vlbench.core.accelerate_env import remove_variables, removed_message
from vlbench.core.errors import VlbenchError
from vlbench.core.progress import Progress, Silent
from vlbench.core.record import RunRecord, ToolInfo
from vlbench.core.spec import RunSpec
from vlbench.engine.job import Job, plan
from vlbench.engine.runtime.ranks import join
from vlbench.records.folder import RunFolder
from vlbench.records.lock import run_lock
from vlbench.records.provenance import code_sha256
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples

Begun: TypeAlias = tuple[RunFolder, RunRecord | None]
"""A run's folder, and its record where it is finished."""


def evaluate(spec: RunSpec, progress: Progress | None = None) -> RunRecord:
    """Finetune, predict, score and record, or return the record where all that is done already.

    Raises:
        VlbenchError: the user's fault, in one sentence.
        Interrupted: asked to stop; the same spec goes on from where it stopped.
    """
    return run(spec, progress)[0]


def run(spec: RunSpec, progress: Progress | None = None) -> tuple[RunRecord, RunFolder]:
    """`evaluate`, and the folder that holds the record; every rank of a run over several processes gets both."""
    removed = remove_variables(spec.device)
    ranks = join(spec.device, spec.num_processes)
    progress = progress if progress and ranks.is_main else Silent()
    if removed:
        progress.say(removed_message(removed))
    job = ranks.together(lambda: plan(spec, progress))
    with ExitStack() as locks:
        begun = ranks.together(lambda: _begin(job, spec.resume, locks) if ranks.is_main else None)
        folder, finished = cast(Begun, ranks.share(begun))
        if finished is not None:
            progress.say(f"already done{_by_other_code(finished.tool)}: this is the record of that run")
            return finished, folder
        from vlbench.engine.execute import execute  # the first import of torch

        return execute(job, folder, progress, ranks), folder


def _by_other_code(then: ToolInfo) -> str:
    """Where the files of vlbench have changed since a run, or while it was done: that, and the remedy."""
    now = code_sha256()
    if then.code_sha256 in ("", now) and not then.earlier_code:
        return ""
    codes = ", then ".join(code[:8] for code in (*then.earlier_code, then.code_sha256))
    return f" by other code of vlbench ({codes}; now {now[:8]}), --no-resume runs it again"


def _begin(job: Job, resume: bool, locks: ExitStack) -> Begun:
    """The run's folder, locked until the stack ends, and the record where all is done already."""
    folder = RunFolder.create(job.spec, job.fingerprint, job.card.name)
    locks.enter_context(run_lock(folder.path))
    if not resume:
        folder.clear()
    return folder, _finished(job, folder)


def _finished(job: Job, folder: RunFolder) -> RunRecord | None:
    """The record of a finished run, its samples readable and complete; None where there is work left."""
    record = folder.read_record()
    if record is None or record.status != "done":
        return None
    if job.ranks:
        read_rankings(folder.ranks, job.report)
    samples = read_samples(folder.samples)
    rows = int((samples["control"] == "").sum())
    if rows != len(job.report):
        raise VlbenchError(
            f"{folder.samples} holds {rows} of {len(job.report)} predictions: rerun with --no-resume to make it again"
        )
    return record
