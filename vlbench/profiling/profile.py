"""Models measured side by side: one verb from a spec to a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from vlbench import catalog
from vlbench.core.errors import VlbenchError
from vlbench.core.profile import (
    PIPELINE,
    Memory,
    ModelProfile,
    ProfileRecord,
    ProfileSpec,
)
from vlbench.core.progress import Progress, Silent
from vlbench.profiling import machine
from vlbench.profiling.build import Opened, open_model
from vlbench.profiling.cost import costs, mebibytes
from vlbench.profiling.gallery import gallery_costs
from vlbench.profiling.inputs import sentences, write_pictures
from vlbench.profiling.latency import latency, ratios
from vlbench.profiling.rule import Rule
from vlbench.profiling.subject import Batch, Subject
from vlbench.profiling.sweep import sweep
from vlbench.profiling.timing import Durations, measure, once
from vlbench.records.provenance import environment, tool

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_MIB = 2**20


@dataclass
class _Found:
    """What is known of one model so far; `error` ends it."""

    name: str
    opened: Opened | None = None
    subject: Subject | None = None
    profile: ModelProfile = field(default_factory=lambda: ModelProfile(model="", size=""))

    def add(self, **parts: object) -> None:
        """Put more into the profile."""
        self.profile = self.profile.model_copy(update=parts)


def profile(spec: ProfileSpec, progress: Progress | None = None) -> tuple[ProfileRecord, dict[str, Durations]]:
    """Measure the models; returns the record, and the raw durations of the latency scenario by model.

    A model that fails keeps its row, with the reason; the others are measured all the same.

    Raises:
        VlbenchError: the device is not there, or an unknown task.
    """
    progress, started, begun = progress or Silent(), datetime.now(UTC), time.perf_counter()
    device, load = _device(spec), machine.load()
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    task = catalog.task_card(spec.task)
    with TemporaryDirectory() as folder, torch.inference_mode(), _precision(spec, device):
        refs = write_pictures(Path(folder) / "pictures", spec.picture, task.images_per_example, spec.seed)
        batch = Batch(refs, sentences(1, spec.words, spec.seed))
        found = [_opened(name, spec, Path(folder), batch, device, progress) for name in spec.models]
        durations = _latencies(spec, found, device, progress) if "latency" in spec.scenario else {}
        if "throughput" in spec.scenario:
            _sweep_all(spec, found, batch, device, progress)
        if "retrieval" in spec.scenario:
            _retrieve_all(spec, found, device, progress)
    spreads = {
        one.profile.name: one.profile.latency.model.p95 / one.profile.latency.model.p50 - 1
        for one in found
        if one.profile.latency
    }
    record = ProfileRecord(
        spec=spec,
        tool=tool(),
        environment=environment(device.type, 1, torch.get_num_threads()),
        machine=machine.state(load, torch.get_num_threads(), spreads, device),
        models=tuple(one.profile for one in found),
        ratios=ratios(durations),
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begun,
    )
    return record, durations


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


def _opened(
    name: str, spec: ProfileSpec, folder: Path, batch: Batch, device: torch.device, progress: Progress
) -> _Found:
    """The model with all that one pass of it says."""
    found = _Found(name, profile=ModelProfile(model=name, size=spec.size or ""))
    progress.say(f"opening {name}")
    with _caught(found):
        opened = open_model(name, spec, folder, device)
        subject = opened.subject(batch, device)
        found.opened, found.subject = opened, subject
        found.add(model=opened.card.name, size=opened.size, visual=opened.card.visual, load_seconds=opened.load_seconds)
        began = time.perf_counter()
        memory = _memory(subject, device)
        found.add(first_batch_seconds=time.perf_counter() - began, memory=memory, tokens=subject.tokens())
        _check_finite(subject)
        counted, held = costs(subject.modules, subject.stages())
        kept = {stage: number for stage, number in counted.stages.items() if stage not in PIPELINE}
        found.add(operations=counted.model_copy(update={"stages": kept}), parameters=held)
    return found


class _caught:  # noqa: N801 - reads as the verb it is
    """Turns what goes wrong with one model into its row's error."""

    def __init__(self, found: _Found) -> None:
        self.found = found

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        reason = error.message if isinstance(error, VlbenchError) else f"{type(error).__name__}: {error}"
        self.found.add(error=" ".join(reason.split())[:300])
        self.found.subject = None
        return True


def _check_finite(subject: Subject) -> None:
    """Raises VlbenchError where the model's answer is no number."""
    answered = subject.stages()[-1].run()
    if isinstance(answered, torch.Tensor) and not bool(answered.isfinite().all()):
        raise VlbenchError("answers with numbers that are none or infinite: its times would mean nothing")


def _memory(subject: Subject, device: torch.device) -> Memory:
    """What the weights take, and what one pass adds to that at most."""
    modules: Sequence[nn.Module] = list(subject.modules.values())
    stages = subject.stages()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        once(stages, device)
        peak = torch.cuda.max_memory_allocated(device) - before
        return Memory(
            weights=mebibytes(modules),
            activations=peak / _MIB,
            reserved=torch.cuda.memory_reserved(device) / _MIB,
            host=machine.host_mib("VmRSS"),
        )
    held = machine.host_mib("VmRSS")
    told = machine.reset_peak()
    once(stages, device)
    peak_of_host = machine.host_mib("VmHWM")
    return Memory(
        weights=mebibytes(modules),
        activations=max(peak_of_host - held, 0.0) if told else None,
        host=peak_of_host or None,
    )


def _latencies(
    spec: ProfileSpec, found: Sequence[_Found], device: torch.device, progress: Progress
) -> dict[str, Durations]:
    """One example at a time, models in turn."""
    there = {one.profile.name: one for one in found if one.subject is not None}
    stages = {name: one.subject.stages() for name, one in there.items() if one.subject is not None}
    rule = Rule(spec.iterations, spec.seconds, spec.precision)
    step: Callable[[int, int], None] = lambda done, total: progress.step("measuring latency", done, total)  # noqa: E731
    durations = measure(stages, rule, spec.max_seconds, device, step)
    for name, one in there.items():
        one.add(latency=latency(durations[name]))
    return durations


def _sweep_all(
    spec: ProfileSpec, found: Sequence[_Found], batch: Batch, device: torch.device, progress: Progress
) -> None:
    """Throughput of every model, batch size by batch size."""
    for done, one in enumerate(found):
        progress.step("measuring throughput", done, len(found))
        if one.opened is None or one.subject is None:
            continue
        with _caught(one):
            one.add(throughput=tuple(sweep(one.opened, spec, batch, device, spec.max_seconds / len(found))))
    progress.step("measuring throughput", len(found), len(found))


def _retrieve_all(spec: ProfileSpec, found: Sequence[_Found], device: torch.device, progress: Progress) -> None:
    """Cost of a query for every model that ranks."""
    for done, one in enumerate(found):
        progress.step("measuring retrieval", done, len(found))
        if one.opened is None or one.subject is None:
            continue
        with _caught(one):
            one.add(retrieval=tuple(gallery_costs(one.opened, one.subject, spec, device)))
    progress.step("measuring retrieval", len(found), len(found))
