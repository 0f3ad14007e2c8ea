"""Execute a planned job: the trial and its controls, and the record of all in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from itertools import chain

from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.core.garbage import existing_objects_kept, without_garbage_collection
from vlbench.core.progress import Progress, Silent
from vlbench.core.record import Efficiency, ModelInfo, RunRecord, TaskInfo, ToolInfo
from vlbench.core.user_code import user_faults
from vlbench.data.resources import Resources
from vlbench.data.text.answers import answers_sha256
from vlbench.engine.build import make_evaluator
from vlbench.engine.control import control_outcome, parallel_control
from vlbench.engine.job import Job
from vlbench.engine.resources import make_resources, resource_spec
from vlbench.engine.runtime.environment import Clock, check_device, latencies, make_accelerator, same_threads
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted, Stoppable
from vlbench.engine.runtime.progress_timing import Logged, examples_per_second
from vlbench.engine.runtime.ranks import Ranks, is_lost_peer
from vlbench.engine.runtime.trackers import metric_values, tracked
from vlbench.engine.training.atomic_folder import drop_resume_state
from vlbench.engine.trial import CONTROL, Outcome, Trial
from vlbench.engine.weights.files import own_processor_sha256
from vlbench.metrics.baseline import majority, slice_majorities
from vlbench.metrics.scoring import MetricResults, score
from vlbench.records.folder import RunFolder
from vlbench.records.provenance import code_sha256, environment, peak_memory_mib, tool
from vlbench.records.samples import write_samples


def execute(
    job: Job, folder: RunFolder, progress: Progress, ranks: Ranks | None = None, jobs: int = 1, others: int = 0
) -> RunRecord:
    """Do the job and write its record in any case, with the status done, interrupted or failed.

    jobs: with at least two, a control runs in a process of its own beside the trial, with the same results. others: the
    number of simultaneous trials of other runs.
    Only rank 0 writes records and logs; its record is returned on all ranks.

    Raises:
        Interrupted: the state is saved; executing the same job again resumes it.
        VlbenchError: an unavailable device or precision, of which no record is left, or another error of the user.
    """
    check_device(job.spec.device, job.arithmetic)  # before anything is written: a resumed run keeps its record
    started, ranks = time.perf_counter(), ranks or Ranks()
    progress = Logged(progress, folder.log) if ranks.is_main else Silent()
    earlier = _earlier_code(folder) if ranks.is_main else ()
    record, fresh = _start_record(job, ranks, earlier), folder.is_empty()
    if earlier:
        progress.say(f"{_mixed_code_note(record.tool)}: --no-resume runs it from the beginning")
    if ranks.is_main:
        folder.write_config(job.spec)
        folder.write_record(record)
    try:
        with user_faults(), same_threads(), existing_objects_kept(), Interrupt() as interrupt:
            record = _run_trials(job, folder, record, progress, interrupt, ranks, jobs, others)
    except (Exception, KeyboardInterrupt) as error:
        if ranks.is_main:
            with suppress(DataError):  # on a full disk the first error is the one to report
                _record_error(folder, record, error, fresh)
        raise
    record = record.model_copy(update={"status": "done", "seconds": time.perf_counter() - started})
    if ranks.is_main:
        record = folder.write_record(record)
        drop_resume_state(folder.path)
    return record


def _record_error(folder: RunFolder, record: RunRecord, error: Exception | KeyboardInterrupt, fresh: bool) -> None:
    """Record how the run ended; clear the folder if the command was rejected before any work was done.

    fresh: whether the folder was empty at the start.
    """
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        folder.write_record(record.model_copy(update={"status": "interrupted"}))
        return
    rejected = isinstance(error, VlbenchError) and error.exit_code == ExitCode.USAGE
    if rejected and fresh and not folder.holds_work():
        folder.clear()
        return
    if is_lost_peer(error):
        why = "another process of the run has ended"
    else:
        why = error.message if isinstance(error, VlbenchError) else f"{type(error).__name__}: {error}"
    folder.write_record(record.model_copy(update={"status": "failed", "error": why}))


def _earlier_code(folder: RunFolder) -> tuple[str, ...]:
    """Hashes of the other code of vlbench that did the work that is resumed; empty without such work."""
    before = folder.read_record()
    if before is None or not folder.holds_work():
        return ()
    codes = dict.fromkeys((*before.tool.earlier_code, before.tool.code_sha256))
    return tuple(code for code in codes if code not in ("", code_sha256()))


def _mixed_code_note(code: ToolInfo) -> str:
    return f"resumed from work of other code of vlbench ({', '.join(sha256[:8] for sha256 in code.earlier_code)})"


def _start_record(job: Job, ranks: Ranks, earlier: tuple[str, ...]) -> RunRecord:
    code = tool().model_copy(update={"earlier_code": earlier})
    return RunRecord(
        status="started",
        fingerprint=job.fingerprint,
        spec=job.spec.to_run_spec(),
        tool=code,
        model=ModelInfo(
            name=job.card.name,
            size=job.size,
            parameters=0,
            from_scratch=job.weights is None,
            weights_sha256=job.weights_sha256,
            model_sha256=job.model_sha256,
        ),
        task=TaskInfo(
            name=job.task.card.name,
            version=job.task.card.version,
            task_sha256=job.task_sha256,
            source=job.task.source,
            manifest_sha256=job.manifest_sha256,
            split=job.spec.split,
            n_total=job.n_total,
            n_scored=len(job.report),
            limit=job.spec.limit,
            main_metric=job.task.card.main_metric,
            shots=tuple(example.id for example in job.shots),
            notes=(*job.task.notes, *job.notes, *([_mixed_code_note(code)] if earlier else [])),
        ),
        environment=environment(job.spec.device or "auto", ranks.size, job.threads),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _run_trials(
    job: Job,
    folder: RunFolder,
    record: RunRecord,
    progress: Progress,
    interrupt: Interrupt,
    ranks: Ranks,
    jobs: int,
    others: int,
) -> RunRecord:
    """Run the trials on all ranks; rank 0 then writes the samples and completes the record."""
    clock = Clock()
    accelerator = make_accelerator(job.spec.device, job.arithmetic, job.threads, job.spec.matmul_precision)
    title = f"{job.card.name}-{job.size} on {job.task.card.name}"
    with tracked(job.spec, folder.path, title, ranks) as trackers, ExitStack() as stack:
        has_control, parallel = CONTROL in job.spec.controls, None
        if has_control and jobs > 1 and ranks.size == 1:
            parallel = stack.enter_context(parallel_control(job, folder, progress))
        with clock.phase("resources"):
            resources = ranks.together(lambda: make_resources(resource_spec(job), Stoppable(progress, interrupt)))
        real = Trial(job, resources, folder, accelerator, progress, interrupt, clock, trackers=trackers)
        trials = {"": real.run()}
        if has_control:
            trials[CONTROL] = control_outcome(real, parallel)
        at_once = others + (2 if parallel else 1)
        used = environment(accelerator.device.type, ranks.size, job.threads, at_once)
        record = record.model_copy(update={"environment": used, "efficiency": _efficiency(trials[""], clock, ranks)})
        complete = ranks.together(
            lambda: _complete_record(job, folder, record, trials, resources) if ranks.is_main else record
        )
        trackers.log(metric_values(complete))
        return ranks.share(complete)


@without_garbage_collection()
def _complete_record(
    job: Job, folder: RunFolder, record: RunRecord, trials: Mapping[str, Outcome], resources: Resources
) -> RunRecord:
    """Match, score and write the results, and fill in the fields of the record that are known only now."""
    outcome, card = trials[""], job.task.card
    evaluator = make_evaluator(job)
    coverage, scores = evaluator.coverage(outcome.results), _scores(job, outcome)
    evaluator.write(folder, outcome.results)
    rows = (evaluator.sample_rows(trial.results, control) for control, trial in trials.items())
    write_samples(folder.samples, chain.from_iterable(rows))
    main = job.task.metric(card.main_metric)
    notes = (*record.task.notes, *scores.notes)
    return record.model_copy(
        update={
            "model": record.model.model_copy(update=_model(job, outcome, resources)),
            "task": record.task.model_copy(update={"notes": notes}),
            "train": outcome.train,
            "results": scores.results,
            "controls": {name: _scores(job, trial).results for name, trial in trials.items() if name},
            "majority": None if job.unscored else majority(main, job.report),
            "slice_majorities": {} if job.unscored else slice_majorities(main, card.slices, job.report),
            "chance": evaluator.random_scores(),
            "coverage": coverage,
        }
    )


def _model(job: Job, outcome: Outcome, resources: Resources) -> dict[str, object]:
    """The fields of ModelInfo that are known only after the trial."""
    fields: dict[str, object] = {
        "parameters": outcome.parameters,
        "dtype": outcome.dtype,
        "load_report": outcome.load_report,
        "preprocessing": {**_preprocessing(job), **outcome.image_processing},
        "prompting": outcome.prompting,
        "tokenizer_sha256": resources.words.sha256 if resources.words else own_processor_sha256(job.card),
    }
    if not job.task.card.labels and job.labels:
        fields |= {"answers": len(job.labels), "answers_sha256": answers_sha256(job.labels)}
    if make_evaluator(job).generates:
        fields |= {"extraction": job.task.card.extraction}
    return fields


def _efficiency(outcome: Outcome, clock: Clock, ranks: Ranks) -> Efficiency:
    """The throughput and latency of all ranks together, and the memory of the one that needs most."""
    timings = ranks.gather_objects(outcome.timing)
    return Efficiency(
        examples_per_second=examples_per_second(timings),
        latency_ms=latencies([seconds for timing in timings for seconds in timing.batches]),
        peak_memory_mib=max(ranks.gather_objects(peak_memory_mib())),
        seconds=clock.seconds,
    )


def _scores(job: Job, outcome: Outcome) -> MetricResults:
    card = job.task.card
    if job.unscored:
        reason = f"the answers of {job.spec.split} are not public: hand the predictions in to the official server"
        return MetricResults((), dict.fromkeys(job.task.metrics, reason))
    return score(job.task.metrics, card.main_metric, card.slices, outcome.results, job.report, job.cut)


def _preprocessing(job: Job) -> dict[str, str | int | float]:
    """How images and texts are preprocessed, as far as the cards say it."""
    size = job.card.sizes[job.size]
    limits = {name: value for name, value in size.config.items() if name.startswith("max_")}
    # vlbench's own models over pixels resize with Pillow; other models report their image processing themselves.
    resizes = job.card.visual in ("patches", "grid") and not job.model_sha256
    backend = {"image_backend": "pil"} if resizes else {}
    return {"visual": job.card.visual, "vocabulary": size.vocabulary, "max_text": size.max_text} | backend | limits
