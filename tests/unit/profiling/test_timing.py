"""The stages advance a fake clock, so every duration is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vlbench.profiling import timing
from vlbench.profiling.latency import summarize_latency
from vlbench.profiling.stopping_rule import StoppingRule
from vlbench.profiling.timing import Durations, Stage, measure, measure_one, run_once

CPU = torch.device("cpu")


class Clock:
    def __init__(self) -> None:
        self.now = self.between = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        """The time, which advances by `between` each time it is read."""
        self.now += self.between
        return self.now

    def stage(self, name: str, *seconds: float, log_as: str = "") -> Stage:
        """A stage that takes each of these durations in turn."""
        left = list(seconds)

        def run() -> None:
            self.log.append(log_as or name)
            self.now += left[0] if len(left) == 1 else left.pop(0)

        return Stage(name, run)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", made)
    return made


def nothing(done: int, total: int) -> None:
    pass


def test_stages_and_the_whole(clock: Clock) -> None:
    stages = [clock.stage("see", 0.5), clock.stage("read", 0.25), clock.stage("see", 1.0)]
    assert run_once(stages, CPU) == ({"see": 1.5, "read": 0.25}, 1.75)


def test_what_no_stage_accounts_for(clock: Clock) -> None:
    clock.between = 0.125
    stages = [clock.stage("see", 0.5), clock.stage("read", 0.25)]
    found = measure_one(stages, StoppingRule(1, 0.0, 1.0), 0.0, CPU, warmup=0)
    # The clock is read once at the start, twice around each stage, once at the end: each stage has one of five steps.
    assert (found.stages, found.whole) == ({"see": [0.625], "read": [0.375]}, [1.375])
    assert summarize_latency(found).rest == pytest.approx(0.375 / 1.375)


def test_models_in_turn_until_each_is_known(clock: Clock) -> None:
    sure = [clock.stage("a", 1.5, log_as="sure")]
    unsure = [clock.stage("b", *([1.5, 2.0] * 40), log_as="unsure")]
    told: list[tuple[int, int]] = []
    step: Callable[[int, int], None] = lambda done, total: told.append((done, total))  # noqa: E731
    found = measure({"sure": sure, "unsure": unsure}, StoppingRule(7, 0.0, 0.02), 40.0, CPU, step, warmup=0)
    assert clock.log[:6] == ["sure", "unsure", "unsure", "sure", "sure", "unsure"]
    assert (found["sure"].why_stopped, len(found["sure"].whole)) == ("precise", 7)
    assert found["unsure"].why_stopped == "out of time" and 35 < clock.now <= 40
    assert found["sure"].rounds == [0, 1, 2, 3, 4, 5, 6]
    assert told[-1] == (2, 2)


def test_what_is_reported_must_be_precise_too(clock: Clock) -> None:
    """The model's part is 0.5 or 0.75 s, unsure by a fifth; of the whole, 20.5 or 20.75 s, that is a hundredth."""

    def found(**reported: Callable[[Durations], list[float]]) -> Durations:
        stages = [clock.stage("decode", 20.0), clock.stage("see", *([0.5, 0.75] * 40))]
        return measure({"": stages}, StoppingRule(6, 0.0, 0.02), clock.now + 500.0, CPU, nothing, **reported)[""]

    assert (found().why_stopped, len(found().whole)) == ("precise", 6)
    unsure = found(reported=lambda durations: durations.sum_stages(["see"]))
    assert unsure.why_stopped == "out of time" and len(unsure.whole) > 20


@pytest.mark.parametrize(("most", "iterations"), [(1.0, 1), (29.0, 2), (31.0, 3)])
def test_a_turn_that_would_end_too_late_is_not_started(clock: Clock, most: float, iterations: int) -> None:
    found = measure_one([clock.stage("a", 10.0)], StoppingRule(10, 0.0, 0.02), most, CPU)
    assert found.whole == [10.0] * iterations and found.why_stopped == "out of time"
    assert found.warmup == []  # its first pass took so long that it counts


def test_others_go_on_where_one_would_take_too_long(clock: Clock) -> None:
    models = {"slow": [clock.stage("a", 10.0)], "quick": [clock.stage("b", 0.5)]}
    found = measure(models, StoppingRule(50, 0.0, 0.02), 13.0, CPU, nothing)
    assert found["slow"].whole == [10.0]
    assert len(found["quick"].whole) == 5 and clock.now == 13.0  # a warm-up, and five that count


def test_warming_up_is_within_the_time(clock: Clock) -> None:
    found = measure_one([clock.stage("a", 0.5)], StoppingRule(10, 0.0, 0.02), 2.0, CPU, warmup=2)
    assert (found.warmup, found.whole, clock.now) == ([0.5, 0.5], [0.5, 0.5], 2.0)


def test_a_model_whose_caches_are_cold_runs_once_more(clock: Clock) -> None:
    """A short stage that takes 0.2 s when it follows itself, and 0.9 s after the long one."""

    def short() -> None:
        clock.now += 0.2 if clock.log[-1:] == ["short"] else 0.9
        clock.log.append("short")

    models = {"short": [Stage("a", short)], "long": [clock.stage("b", 9.0, log_as="long")]}
    found = measure(models, StoppingRule(6, 0.0, 0.02), 1000.0, CPU, nothing)
    assert found["short"].whole == pytest.approx([0.2] * 6) and found["short"].warmup == [0.9]
    assert found["long"].whole == pytest.approx([9.0] * 6) and clock.log.count("long") == 6
    assert clock.log[:9] == ["short", "short", "long", "long", "short", "short", "short", "long", "long"]


def test_a_model_that_raises_is_not_measured_further(clock: Clock) -> None:
    calls = iter(range(10))

    def fails() -> None:
        clock.now += 1.0
        if next(calls) == 4:  # before it three in two turns, because the other ran in between, and one in the third
            raise IndexError("out of range")

    models = {"bad": [Stage("a", fails)], "good": [clock.stage("b", 1.0)]}
    found = measure(models, StoppingRule(6, 0.0, 0.02), 100.0, CPU, nothing, warmup=1)
    assert (found["bad"].whole, found["bad"].why_stopped) == ([1.0, 1.0], "failed")
    assert str(found["bad"].error) == "out of range" and found["good"].error is None
    assert (len(found["good"].whole), found["good"].why_stopped) == (6, "precise")
    with pytest.raises(StopIteration):
        measure_one([Stage("a", lambda: next(iter(())))], StoppingRule(2, 0.0, 0.02), 1.0, CPU)


def test_sum_of_stages(clock: Clock) -> None:
    stages = [clock.stage("decode", 5.0), clock.stage("see", 2.0, 3.0), clock.stage("fuse", 0.5)]
    found = measure_one(stages, StoppingRule(2, 0.0, 10.0), 16.0, CPU)
    assert found.sum_stages(["see", "fuse"]) == [2.5, 3.5]
