"""Finding models by their names, then opening them, with all that one pass says: memory, operations, parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from vlbench import catalog
from vlbench.core.cards import ModelCard, TaskCard
from vlbench.core.errors import VlbenchError, unknown
from vlbench.core.profile import DETECTOR, PIPELINE, Memory, ModelProfile, ProfileSpec
from vlbench.data.text import TextEncoder
from vlbench.profiling import machine
from vlbench.profiling.architectures import completed
from vlbench.profiling.build import chosen_size, open_model
from vlbench.profiling.cost import costs, mebibytes
from vlbench.profiling.found import Found, caught
from vlbench.profiling.subject import Batch, Subject
from vlbench.profiling.timing import once

_MIB = 2**20


def resolved(spec: ProfileSpec, folder: Path) -> list[Found]:
    """Every model's card and size, before anything is built; one that is not there, or has none of the stages asked
    for, fails.

    Args:
        folder: where what is made up may be written.

    Raises:
        VlbenchError: an unknown task, no vocabulary where one was given, a stage that no model has, or nothing is left.
    """
    task = catalog.task_card(spec.task)
    if spec.vocabulary is not None:
        TextEncoder.from_path(spec.vocabulary, spec.words)
    found, stages = list[Found](), dict[str, tuple[str, ...]]()
    for number, name in enumerate(spec.models):
        made = folder / str(number)
        made.mkdir(parents=True)
        one = Found(ModelProfile(model=name, size=spec.size or ""))
        with caught(one):
            card = catalog.model_card(completed(name, made))
            one.add(model=card.name, size=chosen_size(card, spec.size), visual=card.visual)
            if one.name in stages:
                raise VlbenchError("is measured already: name each model once")
            stages[one.name] = stages_of(card, task, spec.detector)
        found.append(one)
    _check_stages(found, stages, spec.stages)
    check_any(found)
    return found


def stages_of(card: ModelCard, task: TaskCard, detector: bool) -> tuple[str, ...]:
    """Names of the stages that a model will have with the task's head."""
    if "generate" in card.outputs and task.output not in card.outputs:
        return (*PIPELINE, "generate")
    before = DETECTOR if card.visual == "regions" and detector else ()
    apart = task.output == "rank" and card.ranks_by == "dual"
    return (*PIPELINE, *before, "see", "read", *(() if apart else ("fuse",)), "head")


def check_any(found: Sequence[Found]) -> None:
    """Raises VlbenchError where every model has failed."""
    if all(one.profile.error for one in found):
        reasons = "; ".join(f"{one.name}: {one.profile.error}" for one in found)
        raise VlbenchError(f"nothing can be measured: {reasons}")


def open_into(found: Found, name: str, spec: ProfileSpec, folder: Path, batch: Batch, device: torch.device) -> None:
    """Open the model of that name, with all that one pass of it says; its stages have run, so that each has its
    inputs."""
    with caught(found):
        reserved = _reserved(device)
        made = open_model(name, spec, folder, device)
        found.opened, subject = made, made.subject(batch, device)
        found.add(load_seconds=made.load_seconds)
        began = time.perf_counter()
        memory = _memory(subject, device, reserved)
        found.add(first_batch_seconds=time.perf_counter() - began, memory=memory, tokens=subject.tokens())
        _check_finite(subject)
        counted, held = costs(subject.modules, subject.stages())
        kept = {stage: number for stage, number in counted.stages.items() if stage not in PIPELINE}
        found.add(operations=counted.model_copy(update={"stages": kept}), parameters=held)
        found.subject = subject


def _check_stages(found: Sequence[Found], theirs: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> None:
    """theirs: by the model's name."""
    known = dict.fromkeys(name for names in theirs.values() for name in names)
    for stage in wanted:
        if known and stage not in known:
            raise unknown("stage", stage, known, f"these models have {', '.join(known)}")
    for one in found:
        if wanted and not one.profile.error and not set(wanted) & set(theirs[one.name]):
            stages = ", ".join(theirs[one.name])
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
