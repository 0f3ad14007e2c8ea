"""The one verb: what was asked for becomes a record. A finished run is not done twice."""

from __future__ import annotations

from vlbench.core.errors import VlbenchError
from vlbench.core.progress import Progress, Silent
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.engine.job import Job, plan
from vlbench.records.folder import RunFolder
from vlbench.records.lock import run_lock
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples


def evaluate(spec: RunSpec, progress: Progress | None = None) -> RunRecord:
    """Finetune, predict, score and record, or return the record where all that is done already.

    Raises:
        VlbenchError: the user's fault, in one sentence.
        Interrupted: asked to stop; the same spec goes on from where it stopped.
    """
    return run(spec, progress)[0]


def run(spec: RunSpec, progress: Progress | None = None) -> tuple[RunRecord, RunFolder]:
    """`evaluate`, and the folder that holds the record."""
    progress = progress or Silent()
    job = plan(spec, progress)
    folder = RunFolder.create(job.spec, job.fingerprint)
    with run_lock(folder.path):
        if not spec.resume:
            folder.clear()
        finished = _finished(job, folder)
        if finished is not None:
            progress.say("already done: this is the record of that run")
            return finished, folder
        from vlbench.engine.execute import execute  # the first import of torch

        return execute(job, folder, progress), folder


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
