"""Check the models of a profile, then build each and count its memory, operations and parameters in one pass."""

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
from vlbench.heads.kinds import head_kind
from vlbench.profiling import machine, memory
from vlbench.profiling.architectures import complete_model
from vlbench.profiling.build import build_model, choose_size
from vlbench.profiling.flops import count_costs
from vlbench.profiling.model_state import ModelState, record_failure
from vlbench.profiling.stages import ModelInputs, StagedModel
from vlbench.profiling.timing import run_once


def resolve_models(spec: ProfileSpec, folder: Path) -> list[ModelState]:
    """Find the card and size of every model before anything is built.

    A model that does not exist, or has none of the stages asked for, fails. folder: where missing preprocessing files
    may be written.

    Raises:
        VlbenchError: an unknown task, an option that the scenarios do not use, no vocabulary at the given path, a stage
            that no model has, a model named twice, or every model fails.
    """
    task = catalog.task_card(spec.task)
    _check_scenarios(spec, task)
    if spec.vocabulary is not None:
        TextEncoder.from_path(spec.vocabulary, spec.words)
    states, stages = list[ModelState](), dict[str, tuple[str, ...]]()
    for number, name in enumerate(spec.models):
        own_folder = folder / str(number)
        own_folder.mkdir(parents=True)
        state = ModelState(ModelProfile(model=name, size=spec.size or ""))
        with record_failure(state):
            card = catalog.model_card(complete_model(name, own_folder))
            state.update_profile(model=card.name, size=choose_size(card, spec.size), visual=card.visual)
            stages[state.name] = stage_names(card, task, spec.detector)
        states.append(state)
    counts = Counter(state.name for state in states if not state.profile.error)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise VlbenchError(f"--model names {first_five(twice)} more than once: name each model once")
    _check_stages(states, stages, spec.stages)
    check_any_left(states)
    return states


def stage_names(card: ModelCard, task: TaskCard, detector: bool) -> tuple[str, ...]:
    """The names of the stages that a model will have with the task's head."""
    before = DETECTOR if card.visual == "regions" and detector else ()
    return (*PIPELINE, *before, *head_kind(card, task).stages)


def _check_scenarios(spec: ProfileSpec, task: TaskCard) -> None:
    """Raises VlbenchError if an option was given that the scenarios do not use."""
    if "retrieval" in spec.scenario and not task.is_retrieval:
        raise VlbenchError(
            f"--task {spec.task} is no ranking task: --scenario retrieval needs one, e.g. --task coco_retrieval"
        )
    for flag, given, value, scenario in (
        ("--stages", spec.stages, ",".join(spec.stages), "latency"),
        ("--batch-sizes", spec.batches, ",".join(map(str, spec.batches)), "throughput"),
        ("--energy", spec.energy, "", "throughput"),
    ):
        if given and scenario not in spec.scenario:
            option = f"{flag} {value}".rstrip()
            raise VlbenchError(f"{option} applies to {scenario} only: leave it out, or add --scenario {scenario}")


def check_any_left(states: Sequence[ModelState]) -> None:
    """Raises VlbenchError if every model has failed."""
    if all(state.profile.error for state in states):
        reasons = "; ".join(f"{state.name}: {state.profile.error}" for state in states)
        raise VlbenchError(f"nothing can be measured: {reasons}")


def build_into(
    state: ModelState, name: str, spec: ProfileSpec, folder: Path, inputs: ModelInputs, device: torch.device
) -> None:
    """Build the model of that name and profile one pass of it; its stages have run afterwards, so each has inputs."""
    with record_failure(state):
        reserved = memory.empty_allocator(device)
        state.built = built = build_model(name, spec, folder, device)
        state.update_profile(load_seconds=built.load_seconds)
        machine.reset_peak_memory()
        began = time.perf_counter()
        run_once(built.with_inputs(inputs, device).stages(), device)
        first_batch = time.perf_counter() - began
        state.staged = staged = built.with_inputs(inputs, device)  # a new one without tensors: all it makes is counted
        with memory.track_added_memory(device) as added:
            operations, parameters = count_costs(staged.modules, staged.stages())
        _check_finite(staged)
        state.update_profile(
            first_batch_seconds=first_batch,
            memory=memory.memory_record(list(staged.modules.values()), added, reserved, device),
            tokens=staged.count_tokens(),
            proposals=_count_proposals(staged),
        )
        counts = {stage: count for stage, count in operations.stages.items() if stage not in PIPELINE}
        state.update_profile(operations=operations.model_copy(update={"stages": counts}), parameters=parameters)


def _check_stages(
    states: Sequence[ModelState], stages_of_model: Mapping[str, Sequence[str]], wanted: Sequence[str]
) -> None:
    """Fail each model that has none of the wanted stages; stages_of_model: by the model's name."""
    known = dict.fromkeys(name for names in stages_of_model.values() for name in names)
    for stage in wanted:
        if known and stage not in known:
            raise unknown("stage", stage, known, f"these models have {', '.join(known)}")
    for state in states:
        if wanted and not state.profile.error and not set(wanted) & set(stages_of_model[state.name]):
            stages = ", ".join(stages_of_model[state.name])
            state.fail(VlbenchError(f"has no stage {' or '.join(wanted)}: choose among {stages}"))


def _count_proposals(staged: StagedModel) -> tuple[int, int] | None:
    """The fewest proposals that the detector kept for an image, and the most it may keep; None without a detector."""
    detector = staged.detector
    return (min(map(len, detector.boxes)), detector.network.rules.proposals) if detector else None


def _check_finite(staged: StagedModel) -> None:
    """Raises VlbenchError if the model's output holds NaN or infinity."""
    output = staged.stages()[-1].run()
    if isinstance(output, torch.Tensor) and not bool(output.isfinite().all()):
        raise VlbenchError("its output holds NaN or infinity: its times would mean nothing")
