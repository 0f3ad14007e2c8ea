"""Durations of models and their stages, measured in rounds, so that drift of the machine affects all models alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from vlbench.profiling.stopping_rule import StoppingRule

LONG = 1.0
"""Seconds of a pass beside which cold caches do not count: filling them takes milliseconds."""


@dataclass(frozen=True)
class Stage:
    """A named step of one batch through a model; the times of steps with one name are added."""

    name: str
    run: Callable[[], object]


@dataclass
class Durations:
    """Seconds of every iteration.

    stages, whole: of each stage, and of the whole by wall clock; all of one length. warmup: of the iterations before
    the first that counts, each as a whole. rounds: the round of the measurement that each iteration belongs to.
    why_stopped: `precise`, `out of time` or `failed`. error: the exception that ended the measurement.
    """

    stages: dict[str, list[float]] = field(default_factory=dict)
    whole: list[float] = field(default_factory=list)
    warmup: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    why_stopped: str = "out of time"
    error: Exception | None = None

    def sum_stages(self, names: Sequence[str]) -> list[float]:
        """Seconds of these stages together, for every iteration."""
        parts = [seconds for name, seconds in self.stages.items() if name in names]
        return [sum(row) for row in zip(*parts, strict=True)]


def run_once(stages: Sequence[Stage], device: torch.device) -> tuple[dict[str, float], float]:
    """Run the stages in order; returns the seconds by stage name, and of the whole by a clock of its own.

    On a GPU the seconds of a stage are the device's own, between two events, and the host does not wait in between; the
    whole is what the host waits for.
    """
    return (_run_on_cuda if device.type == "cuda" else _run_on_host)(stages, device)


def _run_on_host(stages: Sequence[Stage], device: torch.device) -> tuple[dict[str, float], float]:
    seconds: dict[str, float] = {}
    begun = time.perf_counter()
    for stage in stages:
        start = time.perf_counter()
        stage.run()
        if device.type == "mps":
            torch.mps.synchronize()
        taken = time.perf_counter() - start
        seconds[stage.name] = seconds.get(stage.name, 0.0) + taken
    return seconds, time.perf_counter() - begun


def _run_on_cuda(stages: Sequence[Stage], device: torch.device) -> tuple[dict[str, float], float]:
    torch.cuda.synchronize(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(stages) + 1)]  # type: ignore[no-untyped-call]
    begun = time.perf_counter()
    events[0].record()
    for stage, event in zip(stages, events[1:], strict=True):
        stage.run()
        event.record()
    torch.cuda.synchronize(device)
    whole = time.perf_counter() - begun
    seconds: dict[str, float] = {}
    for number, stage in enumerate(stages):
        taken = events[number].elapsed_time(events[number + 1]) / 1000
        seconds[stage.name] = seconds.get(stage.name, 0.0) + taken
    return seconds, whole


def measure(
    models: Mapping[str, Sequence[Stage]],
    rule: StoppingRule,
    max_seconds: float,
    device: torch.device,
    step: Callable[[int, int], None],
    warmup: int = 1,
    reported: Callable[[Durations], Sequence[float]] = lambda durations: durations.whole,
) -> dict[str, Durations]:
    """Measure the models in turn, round after round (A B C, C B A, ...), until the rule is satisfied for each.

    A model that raises is not measured further; the others are. When another model has run in between, a model runs
    once more before it is measured, because its data has left the caches; a model with long passes does not.

    models: name -> stages. max_seconds: for all models together, warm-up included: a model ends at the first turn that
    would end later; the first round is always measured. step: called with the number of models that are done, and of
    all models. warmup: iterations of each model that do not count; a first one that takes long counts. reported: the
    seconds of every iteration whose median must be as precise as that of the whole.
    """
    begun, runs = time.perf_counter(), [_ModelRun(name, stages, device) for name, stages in models.items()]
    left, number, last = list(runs), 0, None
    while left:
        for run in left[:: -1 if number % 2 else 1]:
            if number and time.perf_counter() - begun + run.expected_seconds(run is last) > max_seconds:
                left.remove(run)
                continue
            run.take_turn(number, 0 if run is last else 1 if number else warmup)
            last = run
        left = [run for run in left if not run.is_done(rule, reported)]
        step(len(models) - len(left), len(models))
        number += 1
    step(len(models), len(models))
    return {run.name: run.durations for run in runs}


def measure_one(
    stages: Sequence[Stage], rule: StoppingRule, max_seconds: float, device: torch.device, warmup: int = 1
) -> Durations:
    """Measure one model as `measure` does. Raises whatever its stages raise."""
    durations = measure({"": stages}, rule, max_seconds, device, lambda *_: None, warmup)[""]
    if durations.error is not None:
        raise durations.error
    return durations


class _ModelRun:
    """One model during a measurement, and its durations so far."""

    def __init__(self, name: str, stages: Sequence[Stage], device: torch.device) -> None:
        self.name, self.stages, self.device = name, stages, device
        self.durations = Durations()

    def take_turn(self, number: int, uncounted: int) -> None:
        """Measure the model once in round `number`; uncounted: iterations before that, which do not count."""
        try:
            if self._last > LONG or not self._warm_up(number, uncounted):
                self._record(number, *run_once(self.stages, self.device))
        except Exception as error:  # the other models are measured all the same
            self.durations.error = error

    def expected_seconds(self, again: bool) -> float:
        """Seconds that the next turn will take; again: no other model has run since the last one."""
        return self._last if again or self._last > LONG else 2 * self._last

    def is_done(self, rule: StoppingRule, reported: Callable[[Durations], Sequence[float]]) -> bool:
        """Whether the model needs no more turns; if so, `why_stopped` is set."""
        durations = self.durations
        if durations.error is not None:
            durations.why_stopped = "failed"
        elif rule.is_satisfied(durations.whole) and rule.is_precise(reported(durations)):
            durations.why_stopped = "precise"
        else:
            return False
        return True

    @property
    def _last(self) -> float:
        """Seconds of a recent pass: the faster of the last two, so that one disturbed pass ends nothing."""
        return min(self.durations.whole[-2:], default=0.0)

    def _warm_up(self, number: int, iterations: int) -> bool:
        """Run without counting; true if a run of the first round took so long that it counts."""
        for _ in range(iterations):
            seconds, whole = run_once(self.stages, self.device)
            if number:
                continue
            if whole > LONG:
                self._record(number, seconds, whole)
                return True
            self.durations.warmup.append(whole)
        return False

    def _record(self, number: int, stages: Mapping[str, float], whole: float) -> None:
        self.durations.rounds.append(number)
        self.durations.whole.append(whole)
        for name, seconds in stages.items():
            self.durations.stages.setdefault(name, []).append(seconds)
