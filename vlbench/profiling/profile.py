"""Profile models side by side: from a spec to a record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from vlbench import catalog
from vlbench.core.errors import VlbenchError
from vlbench.core.profile import ProfileRecord, ProfileSpec
from vlbench.core.progress import Progress, Silent
from vlbench.data.cache.scratch import scratch_folder
from vlbench.profiling import machine
from vlbench.profiling.gallery import Stopwatch, measure_queries
from vlbench.profiling.inputs import make_texts, write_images
from vlbench.profiling.latency import latency_ratios, model_seconds, summarize_latency
from vlbench.profiling.load import build_into, check_any_left, resolve_models
from vlbench.profiling.model_state import ModelState, record_failure
from vlbench.profiling.pipeline import measure_pipeline
from vlbench.profiling.stages import ModelInputs
from vlbench.profiling.stopping_rule import StoppingRule
from vlbench.profiling.sweep import ThroughputSweep, fastest_rate
from vlbench.profiling.timing import LONG, Durations, measure, run_once
from vlbench.records.profiles import RawDuration
from vlbench.records.provenance import environment, tool

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_SWEEP_SHARE = 0.75
"""The sweep's share of a model's time for throughput; the rest is the pipeline's."""


def profile(spec: ProfileSpec, progress: Progress | None = None) -> tuple[ProfileRecord, list[RawDuration]]:
    """Measure the models; returns the record, and the raw durations of every iteration.

    A model that fails keeps its row, with the reason; the others are measured all the same. Torch's number of threads
    and the states of its random generators are restored at the end.

    Raises:
        VlbenchError: an unavailable device, an unknown task, a stage that no model has, a model named twice, an option
            that the scenarios do not use, or no model can be built.
    """
    device = _choose_device(spec)
    with _restore_torch(device):
        return _profile(spec, device, progress or Silent())


@contextmanager
def _restore_torch(device: torch.device) -> Iterator[None]:
    """Restore torch's number of threads and its random generators at the end of the block."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)


def _profile(spec: ProfileSpec, device: torch.device, progress: Progress) -> tuple[ProfileRecord, list[RawDuration]]:
    started, begun, load = datetime.now(UTC), time.perf_counter(), machine.system_load()
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    task, spent, durations = catalog.task_card(spec.task), dict[str, float](), dict[str, Durations]()
    autocast = torch.autocast(device.type, _DTYPES[spec.dtype]) if spec.dtype in _DTYPES else nullcontext()
    with scratch_folder() as folder, torch.inference_mode(), autocast:
        refs = write_images(folder / "images", spec.picture, task.images_per_example, spec.seed)
        inputs = ModelInputs(refs, make_texts(1, spec.words, spec.seed))
        with _timed(spent, "opening"):
            states = _build_all(spec, folder, inputs, device, progress)
        if "latency" in spec.scenario:
            with _timed(spent, "latency"):
                durations = _measure_latencies(spec, states, device, progress)
        if "throughput" in spec.scenario:
            with _timed(spent, "throughput"):
                _measure_throughputs(spec, states, inputs, device, progress)
        if "retrieval" in spec.scenario:
            with _timed(spent, "retrieval"):
                _measure_retrievals(spec, states, device, progress)
    complete = {name: measured for name, measured in durations.items() if measured.error is None}
    record = ProfileRecord(
        spec=spec,
        tool=tool(),
        environment=environment(device.type, 1, torch.get_num_threads()),
        machine=machine.describe_machine(load, torch.get_num_threads(), _latency_spreads(states), device),
        models=tuple(state.profile for state in states),
        ratios=latency_ratios(complete, spec.stages),
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begun,
        spent=spent,
    )
    return record, [value for state in states for value in state.raw]


def _choose_device(spec: ProfileSpec) -> torch.device:
    wanted = spec.device or ("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted not in available:
        raise VlbenchError(f"--device {wanted} is unknown: expected cpu, cuda or mps")
    if not available[wanted]:
        raise VlbenchError(
            f"--device {wanted} is not available: torch {torch.__version__} finds no such device; use --device cpu"
        )
    return torch.device(wanted)


def _build_all(
    spec: ProfileSpec, folder: Path, inputs: ModelInputs, device: torch.device, progress: Progress
) -> list[ModelState]:
    states = resolve_models(spec, folder / "names")
    for name, state in zip(spec.models, states, strict=True):
        if state.profile.error:
            progress.say(f"{state.name}: {state.profile.error}")
            continue
        progress.say(f"building {name}")
        build_into(state, name, spec, folder, inputs, device)
    check_any_left(states)
    return states


@contextmanager
def _timed(spent: dict[str, float], what: str) -> Iterator[None]:
    """Put the seconds of the block into `spent`."""
    begun = time.perf_counter()
    yield
    spent[what] = time.perf_counter() - begun


def _latency_spreads(states: Sequence[ModelState]) -> dict[str, float]:
    """Model -> the share by which the 95th percentile of its latency exceeds the median."""
    totals = {state.name: state.profile.latency.model for state in states if state.profile.latency}
    return {name: total.p95 / total.p50 - 1 for name, total in totals.items()}


def _measure_latencies(
    spec: ProfileSpec, states: Sequence[ModelState], device: torch.device, progress: Progress
) -> dict[str, Durations]:
    """Measure one example at a time, models in turn."""
    usable = {state.name: state for state in states if state.staged is not None}
    stages = {name: state.staged.stages() for name, state in usable.items() if state.staged is not None}
    if spec.stages:
        stages = {name: [stage for stage in own if stage.name in spec.stages] for name, own in stages.items()}
    rule = StoppingRule(spec.iterations, spec.seconds, spec.precision)
    step, reported = partial(progress.step, "measuring latency"), partial(model_seconds, stages=spec.stages)
    durations = measure(stages, rule, spec.max_seconds, device, step, reported=reported)
    for name, state in usable.items():
        state.keep_durations("latency", durations[name])
        if error := durations[name].error:
            state.fail(error)
        else:
            state.update_profile(latency=summarize_latency(durations[name], spec.stages))
    return durations


def _measure_throughputs(
    spec: ProfileSpec, states: Sequence[ModelState], inputs: ModelInputs, device: torch.device, progress: Progress
) -> None:
    """Measure the throughput of every model; time that one model leaves goes to the next ones."""
    ends = time.perf_counter() + spec.max_seconds
    usable = [state for state in states if state.staged is not None]
    for done, state in enumerate(usable):
        progress.step("measuring throughput", done, len(usable))
        with record_failure(state):
            _measure_throughput(state, spec, inputs, device, (ends - time.perf_counter()) / (len(usable) - done))
    progress.step("measuring throughput", len(usable), len(usable))


def _measure_throughput(
    state: ModelState, spec: ProfileSpec, inputs: ModelInputs, device: torch.device, max_seconds: float
) -> None:
    """Measure batch size by batch size, then from files to answers; rates are kept even if a later one fails."""
    built, staged, ends = state.built, state.staged, time.perf_counter() + max_seconds
    if built is None or staged is None:
        return
    first = state.profile.first_batch_seconds or 0.0
    if first <= LONG:  # most of it was start-up and not the model's work
        first = run_once(staged.stages(), device)[1]
    keep = partial(state.keep_durations, "throughput")
    sweep = ThroughputSweep(built, spec, inputs, device, first, _SWEEP_SHARE * max_seconds, keep)
    for rate in sweep.rates():
        state.update_profile(throughput=(*state.profile.throughput, rate))
    if best := fastest_rate(state.profile.throughput):
        keep, left = partial(state.keep_durations, "throughput", whole="pipeline"), ends - time.perf_counter()
        pipeline = measure_pipeline(built, spec, inputs, best.batch, sweep.cost, device, left, keep)
        state.update_profile(pipeline=pipeline)


def _measure_retrievals(
    spec: ProfileSpec, states: Sequence[ModelState], device: torch.device, progress: Progress
) -> None:
    """Measure the cost of a query for every model; time that one model leaves goes to the next ones."""
    ends = time.perf_counter() + spec.max_seconds
    usable = [state for state in states if state.built is not None and state.staged is not None]
    rule = StoppingRule(spec.iterations, 0.0, spec.precision)
    for done, state in enumerate(usable):
        step = partial(progress.step, "measuring retrieval", done, len(usable))
        step(state.name)
        share = (ends - time.perf_counter()) / (len(usable) - done)
        with record_failure(state):
            _measure_retrieval(state, Stopwatch(rule, share, device, partial(state.keep_durations, "retrieval"), step))
    progress.step("measuring retrieval", len(usable), len(usable))


def _measure_retrieval(state: ModelState, watch: Stopwatch) -> None:
    """Measure the queries of one model; those measured are kept even if a later one fails."""
    if state.built is None or state.staged is None:
        return
    for query in measure_queries(state.built, state.staged, watch):
        state.update_profile(retrieval=(*state.profile.retrieval, query))
