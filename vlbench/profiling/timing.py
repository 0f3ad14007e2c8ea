"""Durations of subjects and their stages, round by round, so that whatever drifts hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from vlbench.profiling.rule import Rule


@dataclass(frozen=True)
class Stage:
    """A step on the way of one batch through a model; steps of one name count together."""

    name: str
    run: Callable[[], object]


@dataclass
class Durations:
    """Seconds of every iteration: of each stage, and of the whole by the clock on the wall; they have one length.

    warmup: of the iterations before, the whole each. why: `precise`, `out of time` or `failed`. rounds: which round of
    the measurement each iteration belongs to. error: what ended it early.
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
    """Run the stages one after the other: seconds by name, and of the whole.

    On a GPU each stage's seconds are the device's own between two events, and nothing waits in between: the whole is
    what the host waits for.
    """
    return (_on_cuda if device.type == "cuda" else _on_host)(stages, device)


def _on_host(stages: Sequence[Stage], device: torch.device) -> tuple[dict[str, float], float]:
    seconds: dict[str, float] = {}
    begun = last = time.perf_counter()
    for stage in stages:
        stage.run()
        if device.type == "mps":
            torch.mps.synchronize()
        now = time.perf_counter()
        seconds[stage.name] = seconds.get(stage.name, 0.0) + now - last
        last = now
    return seconds, last - begun


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
    warmup: int = 2,
) -> dict[str, Durations]:
    """Measure the subjects in turn, round after round (A B C, C B A, ...), until the rule is satisfied for each.

    One that raises is measured no further; the others go on.

    Args:
        subjects: stages by name.
        max_seconds: for all of them together, after which it ends, each having been measured twice at least.
        step: told how many subjects are done, and how many there are.
        warmup: iterations of each before anything counts.
    """
    found = {name: Durations() for name in subjects}
    for name, stages in subjects.items():
        _warm(found[name], stages, device, warmup)
    begun, number, left = time.perf_counter(), 0, [name for name in subjects if found[name].error is None]
    while left and (number < 2 or time.perf_counter() - begun < max_seconds):
        for name in left[:: -1 if number % 2 else 1]:
            _add(found[name], number, subjects[name], device)
        for name in [name for name in left if _is_done(found[name], rule)]:
            left.remove(name)
        step(len(subjects) - len(left), len(subjects))
        number += 1
    step(len(subjects), len(subjects))
    return found


def measure_one(
    stages: Sequence[Stage], rule: Rule, max_seconds: float, device: torch.device, warmup: int = 1
) -> Durations:
    """A subject alone, as `measure` does; what it raises is raised."""
    found = measure({"": stages}, rule, max_seconds, device, lambda *_: None, warmup)[""]
    if found.error is not None:
        raise found.error
    return found


def _warm(durations: Durations, stages: Sequence[Stage], device: torch.device, iterations: int) -> None:
    with _noting(durations):
        durations.warmup += [once(stages, device)[1] for _ in range(iterations)]


def _add(durations: Durations, number: int, stages: Sequence[Stage], device: torch.device) -> None:
    with _noting(durations):
        by_stage, whole = once(stages, device)
        durations.rounds.append(number)
        durations.whole.append(whole)
        for name, seconds in by_stage.items():
            durations.stages.setdefault(name, []).append(seconds)


def _is_done(durations: Durations, rule: Rule) -> bool:
    if durations.error is None and not rule.satisfied(durations.whole):
        return False
    durations.why = "failed" if durations.error else "precise"
    return True


@contextmanager
def _noting(durations: Durations) -> Iterator[None]:
    """Whatever a model raises, those that are measured beside it go on."""
    try:
        yield
    except Exception as error:
        durations.error = error
