"""Finding models by their names, then opening them, with all that one pass says: memory, operations, parameters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from vlbench import catalog
from vlbench.core.cards import ModelCard, TaskCard
from vlbench.core.errors import VlbenchError, first_five, unknown
from vlbench.core.profile import DETECTOR, PIPELINE, ModelProfile, ProfileSpec
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.profiling import machine, memory
from vlbench.profiling.architectures import completed
from vlbench.profiling.build import chosen_size, open_model
from vlbench.profiling.flops import costs
from vlbench.profiling.model_state import Found, caught
from vlbench.profiling.stages import Batch, SeeReadFuse, Subject
from vlbench.profiling.timing import once


def resolved(spec: ProfileSpec, folder: Path) -> list[Found]:
    """Every model's card and size, before anything is built; one that is not there, or has none of the stages asked
    for, fails.

    Args:
        folder: where what is made up may be written.

    Raises:
        VlbenchError: an unknown task, what the scenarios asked for have no use for, no vocabulary where one was given,
            a stage that no model has, a model named twice, or nothing is left.
    """
    task = catalog.task_card(spec.task)
    _check_scenarios(spec, task)
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
            stages[one.name] = stages_of(card, task, spec.detector)
        found.append(one)
    twice = [name for name, number in Counter(one.name for one in found if not one.profile.error).items() if number > 1]
    if twice:
        raise VlbenchError(f"--model names {first_five(twice)} more than once: name each model once")
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


def _check_scenarios(spec: ProfileSpec, task: TaskCard) -> None:
    """Raises VlbenchError where something was asked for that the scenarios cannot do."""
    if "retrieval" in spec.scenario and task.output != "rank":
        raise VlbenchError(
            f"--task {spec.task} ranks nothing: --scenario retrieval needs a ranking task, e.g. --task coco_retrieval"
        )
    for flag, given, value, scenario in (
        ("--stages", spec.stages, ",".join(spec.stages), "latency"),
        ("--batch-sizes", spec.batches, ",".join(map(str, spec.batches)), "throughput"),
        ("--energy", spec.energy, "", "throughput"),
    ):
        if given and scenario not in spec.scenario:
            said = f"{flag} {value}".rstrip()
            raise VlbenchError(f"{said} is of {scenario} alone: leave it out, or add --scenario {scenario}")


def check_any(found: Sequence[Found]) -> None:
    """Raises VlbenchError where every model has failed."""
    if all(one.profile.error for one in found):
        reasons = "; ".join(f"{one.name}: {one.profile.error}" for one in found)
        raise VlbenchError(f"nothing can be measured: {reasons}")


def open_into(found: Found, name: str, spec: ProfileSpec, folder: Path, batch: Batch, device: torch.device) -> None:
    """Open the model of that name, with all that one pass of it says; its stages have run, so that each has its
    inputs."""
    with caught(found):
        reserved = memory.emptied(device)
        made = open_model(name, spec, folder, device)
        found.opened = made
        found.add(load_seconds=made.load_seconds)
        machine.reset_peak()
        began = time.perf_counter()
        once(made.subject(batch, device).stages(), device)
        first_batch = time.perf_counter() - began
        found.subject = subject = made.subject(batch, device)  # it holds nothing yet: all that it makes is counted
        with memory.added(device) as added:
            counted, held = costs(subject.modules, subject.stages())
        _check_finite(subject)
        found.add(
            first_batch_seconds=first_batch,
            memory=memory.told(list(subject.modules.values()), added, reserved, device),
            tokens=subject.tokens(),
            proposals=_proposals(subject),
        )
        kept = {stage: number for stage, number in counted.stages.items() if stage not in PIPELINE}
        found.add(operations=counted.model_copy(update={"stages": kept}), parameters=held)


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


def _proposals(subject: Subject) -> tuple[int, int] | None:
    """Fewest that the detector kept of a picture, and how many it may."""
    detection = subject.detection if isinstance(subject, SeeReadFuse) else None
    if detection is None:
        return None
    return min(len(boxes) for boxes in detection.boxes), detection.network.rules.proposals


def _check_finite(subject: Subject) -> None:
    """Raises VlbenchError where the model's answer is no number."""
    answered = subject.stages()[-1].run()
    if isinstance(answered, torch.Tensor) and not bool(answered.isfinite().all()):
        raise VlbenchError("answers with numbers that are none or infinite: its times would mean nothing")
