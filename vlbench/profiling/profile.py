"""Models measured side by side: one verb from a spec to a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vlbench import catalog
from vlbench.core.errors import VlbenchError
from vlbench.core.profile import ProfileRecord, ProfileSpec
from vlbench.core.progress import Progress, Silent
from vlbench.profiling import machine
from vlbench.profiling.gallery import Stopwatch, gallery_costs
from vlbench.profiling.inputs import sentences, write_pictures
from vlbench.profiling.latency import latency, of_model, ratios
from vlbench.profiling.load import check_any, open_into, resolved
from vlbench.profiling.model_state import Found, caught
from vlbench.profiling.pipeline import pipeline
from vlbench.profiling.stages import Batch
from vlbench.profiling.stopping_rule import Rule
from vlbench.profiling.sweep import Sweep, fastest
from vlbench.profiling.timing import LONG, Durations, measure, once
from vlbench.records.profiles import RawDuration
from vlbench.records.provenance import environment, tool

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_OF_SWEEP = 0.75
"""Of a model's time for throughput; the rest is the pipeline's."""


def profile(spec: ProfileSpec, progress: Progress | None = None) -> tuple[ProfileRecord, list[RawDuration]]:
    """Measure the models; returns the record, and the raw values of all that was measured again and again.

    A model that fails keeps its row, with the reason; the others are measured all the same. The process's threads and
    torch's generators of chance are afterwards as they were.

    Raises:
        VlbenchError: the device is not there, an unknown task, a stage that no model has, a model named twice, what
            the scenarios asked for have no use for, or no model can be opened.
    """
    device = _device(spec)
    with _put_back(device):
        return _profile(spec, device, progress or Silent())


@contextmanager
def _put_back(device: torch.device) -> Iterator[None]:
    """How many threads torch computes with, and the states of its generators, are as before in the end."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)


def _profile(spec: ProfileSpec, device: torch.device, progress: Progress) -> tuple[ProfileRecord, list[RawDuration]]:
    started, begun, load = datetime.now(UTC), time.perf_counter(), machine.load()
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    task, spent, durations = catalog.task_card(spec.task), dict[str, float](), dict[str, Durations]()
    with TemporaryDirectory() as folder, torch.inference_mode(), _precision(spec, device):
        refs = write_pictures(Path(folder) / "pictures", spec.picture, task.images_per_example, spec.seed)
        batch = Batch(refs, sentences(1, spec.words, spec.seed))
        with _timed(spent, "opening"):
            found = _open_all(spec, Path(folder), batch, device, progress)
        if "latency" in spec.scenario:
            with _timed(spent, "latency"):
                durations = _latencies(spec, found, device, progress)
        if "throughput" in spec.scenario:
            with _timed(spent, "throughput"):
                _sweep_all(spec, found, batch, device, progress)
        if "retrieval" in spec.scenario:
            with _timed(spent, "retrieval"):
                _retrieve_all(spec, found, device, progress)
    kept = {name: of for name, of in durations.items() if of.error is None}
    record = ProfileRecord(
        spec=spec,
        tool=tool(),
        environment=environment(device.type, 1, torch.get_num_threads()),
        machine=machine.state(load, torch.get_num_threads(), _spreads(found), device),
        models=tuple(one.profile for one in found),
        ratios=ratios(kept, spec.stages),
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begun,
        spent=spent,
    )
    return record, [value for one in found for value in one.raw]


def _device(spec: ProfileSpec) -> torch.device:
    wanted = spec.device or ("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted not in there:
        raise VlbenchError(f"--device {wanted} is unknown: expected cpu, cuda or mps")
    if not there[wanted]:
        raise VlbenchError(f"--device {wanted} is not there: torch {torch.__version__} sees none; use --device cpu")
    return torch.device(wanted)


def _precision(spec: ProfileSpec, device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, _DTYPES[spec.dtype]) if spec.dtype in _DTYPES else nullcontext()


def _open_all(spec: ProfileSpec, folder: Path, batch: Batch, device: torch.device, progress: Progress) -> list[Found]:
    found = resolved(spec, folder / "names")
    for name, one in zip(spec.models, found, strict=True):
        if one.profile.error:
            progress.say(f"{one.name}: {one.profile.error}")
            continue
        progress.say(f"opening {name}")
        open_into(one, name, spec, folder, batch, device)
    check_any(found)
    return found


@contextmanager
def _timed(spent: dict[str, float], what: str) -> Iterator[None]:
    """Note how many seconds it takes."""
    begun = time.perf_counter()
    yield
    spent[what] = time.perf_counter() - begun


def _spreads(found: Sequence[Found]) -> dict[str, float]:
    """How far the 95th percentile of each model's latency lies above its median, as a share."""
    totals = {one.name: one.profile.latency.model for one in found if one.profile.latency}
    return {name: total.p95 / total.p50 - 1 for name, total in totals.items()}


def _latencies(
    spec: ProfileSpec, found: Sequence[Found], device: torch.device, progress: Progress
) -> dict[str, Durations]:
    """One example at a time, models in turn."""
    there = {one.name: one for one in found if one.subject is not None}
    stages = {name: one.subject.stages() for name, one in there.items() if one.subject is not None}
    if spec.stages:
        stages = {name: [stage for stage in of if stage.name in spec.stages] for name, of in stages.items()}
    rule = Rule(spec.iterations, spec.seconds, spec.precision)
    step: Callable[[int, int], None] = lambda done, total: progress.step("measuring latency", done, total)  # noqa: E731
    durations = measure(stages, rule, spec.max_seconds, device, step, quoted=lambda found: of_model(found, spec.stages))
    for name, one in there.items():
        one.keep("latency", durations[name])
        if error := durations[name].error:
            one.fail(error)
        else:
            one.add(latency=latency(durations[name], spec.stages))
    return durations


def _sweep_all(
    spec: ProfileSpec, found: Sequence[Found], batch: Batch, device: torch.device, progress: Progress
) -> None:
    """Throughput of every model; what one leaves of its time is the next ones'."""
    ends = time.perf_counter() + spec.max_seconds
    there = [one for one in found if one.subject is not None]
    for done, one in enumerate(there):
        progress.step("measuring throughput", done, len(there))
        with caught(one):
            _rates(one, spec, batch, device, (ends - time.perf_counter()) / (len(there) - done))
    progress.step("measuring throughput", len(there), len(there))


def _rates(one: Found, spec: ProfileSpec, batch: Batch, device: torch.device, max_seconds: float) -> None:
    """Batch size by batch size, then from files to answers; what was measured is kept whatever comes after it."""
    opened, subject, ends = one.opened, one.subject, time.perf_counter() + max_seconds
    if opened is None or subject is None:
        return
    first = one.profile.first_batch_seconds or 0.0
    if first <= LONG:  # most of it was no work of the model's
        first = once(subject.stages(), device)[1]
    keep = partial(one.keep, "throughput")
    sweep = Sweep(opened, spec, batch, device, first, _OF_SWEEP * max_seconds, keep)
    for rate in sweep.rates():
        one.add(throughput=(*one.profile.throughput, rate))
    if best := fastest(one.profile.throughput):
        left = ends - time.perf_counter()
        keep = partial(one.keep, "throughput", whole="pipeline")
        one.add(pipeline=pipeline(opened, spec, batch, best.batch, sweep.cost, device, left, keep))


def _retrieve_all(spec: ProfileSpec, found: Sequence[Found], device: torch.device, progress: Progress) -> None:
    """Cost of a query for every model; what one leaves of its time is the next ones'."""
    ends = time.perf_counter() + spec.max_seconds
    there = [one for one in found if one.opened is not None and one.subject is not None]
    rule = Rule(spec.iterations, 0.0, spec.precision)
    for done, one in enumerate(there):
        step = partial(progress.step, "measuring retrieval", done, len(there))
        step(one.name)
        share = (ends - time.perf_counter()) / (len(there) - done)
        with caught(one):
            _queries(one, Stopwatch(rule, share, device, partial(one.keep, "retrieval"), step))
    progress.step("measuring retrieval", len(there), len(there))


def _queries(one: Found, watch: Stopwatch) -> None:
    """What was measured is kept whatever comes after it."""
    if one.opened is None or one.subject is None:
        return
    for query in gallery_costs(one.opened, one.subject, watch):
        one.add(retrieval=(*one.profile.retrieval, query))
