"""Opening a model, and all that one pass of it says: memory, operations, parameters, and whether it answers at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from vlbench.core.errors import VlbenchError, unknown
from vlbench.core.profile import PIPELINE, Memory, ModelProfile, ProfileSpec
from vlbench.profiling import machine
from vlbench.profiling.build import open_model
from vlbench.profiling.cost import costs, mebibytes
from vlbench.profiling.found import Found, caught
from vlbench.profiling.subject import Batch, Subject
from vlbench.profiling.timing import once

_MIB = 2**20


def opened(name: str, spec: ProfileSpec, folder: Path, batch: Batch, device: torch.device) -> Found:
    """The model with all that one pass of it says; its stages have run, so that each has its inputs."""
    found = Found(ModelProfile(model=name, size=spec.size or ""))
    with caught(found):
        reserved = _reserved(device)
        made = open_model(name, spec, folder, device)
        found.opened, subject = made, made.subject(batch, device)
        found.add(model=made.card.name, size=made.size, visual=made.card.visual, load_seconds=made.load_seconds)
        began = time.perf_counter()
        memory = _memory(subject, device, reserved)
        found.add(first_batch_seconds=time.perf_counter() - began, memory=memory, tokens=subject.tokens())
        _check_finite(subject)
        counted, held = costs(subject.modules, subject.stages())
        kept = {stage: number for stage, number in counted.stages.items() if stage not in PIPELINE}
        found.add(operations=counted.model_copy(update={"stages": kept}), parameters=held)
        found.subject = subject
    return found


def check_stages(found: Sequence[Found], wanted: Sequence[str]) -> None:
    """A model that has none of the stages asked for fails.

    Raises:
        VlbenchError: no model has one of them.
    """
    theirs = {one.name: [stage.name for stage in one.subject.stages()] for one in found if one.subject}
    known = dict.fromkeys(name for names in theirs.values() for name in names)
    for stage in wanted:
        if known and stage not in known:
            raise unknown("stage", stage, known, f"these models have {', '.join(known)}")
    for one in found:
        if wanted and one.name in theirs and not set(wanted) & set(theirs[one.name]):
            stages = ", ".join(dict.fromkeys(theirs[one.name]))
            one.fail(VlbenchError(f"has no stage {' or '.join(wanted)}: measure some of {stages}"))


def _check_finite(subject: Subject) -> None:
    """Raises VlbenchError where the model's answer is no number."""
    answered = subject.stages()[-1].run()
    if isinstance(answered, torch.Tensor) and not bool(answered.isfinite().all()):
        raise VlbenchError("answers with numbers that are none or infinite: its times would mean nothing")


def _reserved(device: torch.device) -> int:
    """Bytes that the device's allocator holds."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def _memory(subject: Subject, device: torch.device, reserved: int) -> Memory:
    """What the weights take, and what one pass adds to that at most; reserved: before the model was there."""
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
            reserved=(_reserved(device) - reserved) / _MIB,
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
