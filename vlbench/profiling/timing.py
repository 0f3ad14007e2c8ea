"""Durations of subjects and their stages, round by round, so that whatever drifts hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from vlbench.profiling.stopping_rule import Rule

LONG = 1.0
"""Seconds of a pass to which what it finds in the caches is nothing: filling them takes milliseconds."""


@dataclass(frozen=True)
class Stage:
    """A step on the way of one batch through a model; steps of one name count together."""

    name: str
    run: Callable[[], object]


@dataclass
class Durations:
    """Seconds of every iteration: of each stage, and of the whole by the clock on the wall; they have one length.

    warmup: of the iterations before the first, the whole each. why: `precise`, `out of time` or `failed`. rounds: which
    round of the measurement each iteration belongs to. error: what ended it early.
    """

    stages: dict[str, list[float]] = field(default_factory=dict)
    whole: list[float] = field(default_factory=list)
    warmup: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    why: str = "out of time"
    error: Exception | None = None

    def of(self, names: Sequence[str]) -> list[float]:
        """The sum of some stages in every iteration."""
        parts = [seconds for name, seconds in self.stages.items() if name in names]
        return [sum(row) for row in zip(*parts, strict=True)]


def once(stages: Sequence[Stage], device: torch.device) -> tuple[dict[str, float], float]:
    """Run the stages one after the other: seconds by name, and of the whole by a clock of its own around them all.

    On a GPU each stage's seconds are the device's own between two events, and nothing waits in between: the whole is
    what the host waits for.
    """
    return (_on_cuda if device.type == "cuda" else _on_host)(stages, device)


def _on_host(stages: Sequence[Stage], device: torch.device) -> tuple[dict[str, float], float]:
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


def _on_cuda(stages: Sequence[Stage], device: torch.device) -> tuple[dict[str, float], float]:
    torch.cuda.synchronize(device)
    marks = [cast(Any, torch.cuda.Event)(enable_timing=True) for _ in range(len(stages) + 1)]
    begun = time.perf_counter()
    marks[0].record()
    for stage, mark in zip(stages, marks[1:], strict=True):
        stage.run()
        mark.record()
    torch.cuda.synchronize(device)
    whole = time.perf_counter() - begun
    seconds: dict[str, float] = {}
    for number, stage in enumerate(stages):
        taken = marks[number].elapsed_time(marks[number + 1]) / 1000
        seconds[stage.name] = seconds.get(stage.name, 0.0) + taken
    return seconds, whole


def measure(
    subjects: Mapping[str, Sequence[Stage]],
    rule: Rule,
    max_seconds: float,
    device: torch.device,
    step: Callable[[int, int], None],
    warmup: int = 1,
    quoted: Callable[[Durations], Sequence[float]] = lambda durations: durations.whole,
) -> dict[str, Durations]:
    """Measure the subjects in turn, round after round (A B C, C B A, ...), until the rule is satisfied for each.

    One that raises is measured no further; the others go on. One that another has driven out of the caches runs once
    more before it is measured, unless it takes so long that this says nothing of it.

    Args:
        subjects: stages by name.
        max_seconds: for all of them together, warm-up and all: a subject's turn that would end later is its end. The
            first is measured whatever it takes.
        step: told how many subjects are done, and how many there are.
        warmup: iterations of each before anything counts; the first that takes long counts itself.
        quoted: seconds of every iteration whose median must be as precise as that of the whole.
    """
    begun, turns = time.perf_counter(), [_Turns(name, stages, device) for name, stages in subjects.items()]
    left, number, last = list(turns), 0, None
    while left:
        for turn in left[:: -1 if number % 2 else 1]:
            if number and time.perf_counter() - begun + turn.expects(turn is last) > max_seconds:
                left.remove(turn)
                continue
            turn.take(number, 0 if turn is last else 1 if number else warmup)
            last = turn
        left = [turn for turn in left if not turn.is_done(rule, quoted)]
        step(len(subjects) - len(left), len(subjects))
        number += 1
    step(len(subjects), len(subjects))
    return {turn.name: turn.durations for turn in turns}


def measure_one(
    stages: Sequence[Stage], rule: Rule, max_seconds: float, device: torch.device, warmup: int = 1
) -> Durations:
    """A subject alone, as `measure` does; what it raises is raised."""
    found = measure({"": stages}, rule, max_seconds, device, lambda *_: None, warmup)[""]
    if found.error is not None:
        raise found.error
    return found


class _Turns:
    """One subject on its way through the rounds."""

    def __init__(self, name: str, stages: Sequence[Stage], device: torch.device) -> None:
        self.name, self.stages, self.device = name, stages, device
        self.durations = Durations()

    def take(self, number: int, before: int) -> None:
        """Measure it once; before: how often it runs first, without counting."""
        with _noting(self.durations):
            if self._last > LONG or not self._run_before(number, before):
                self._count(number, once(self.stages, self.device))

    def expects(self, again: bool) -> float:
        """Seconds that the next turn will take; again: no other subject has run since the last."""
        return self._last if again or self._last > LONG else 2 * self._last

    def is_done(self, rule: Rule, quoted: Callable[[Durations], Sequence[float]]) -> bool:
        """Whether it needs no more turns; notes why."""
        found = self.durations
        if found.error is None and not (rule.satisfied(found.whole) and rule.is_precise(quoted(found))):
            return False
        found.why = "failed" if found.error else "precise"
        return True

    @property
    def _last(self) -> float:
        """Seconds of a pass lately; of two, so that one that something disturbed ends nothing."""
        return min(self.durations.whole[-2:], default=0.0)

    def _run_before(self, number: int, times: int) -> bool:
        """Run so often; true when one run of the first turn took so long that it counts."""
        for _ in range(times):
            found = once(self.stages, self.device)
            if number:
                continue
            if found[1] > LONG:
                self._count(number, found)
                return True
            self.durations.warmup.append(found[1])
        return False

    def _count(self, number: int, found: tuple[dict[str, float], float]) -> None:
        self.durations.rounds.append(number)
        self.durations.whole.append(found[1])
        for name, seconds in found[0].items():
            self.durations.stages.setdefault(name, []).append(seconds)


@contextmanager
def _noting(durations: Durations) -> Iterator[None]:
    """Whatever a model raises, those that are measured beside it go on."""
    try:
        yield
    except Exception as error:
        durations.error = error
