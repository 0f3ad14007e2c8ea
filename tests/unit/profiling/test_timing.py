"""With a clock that the stages move themselves, every duration is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vlbench.profiling import timing
from vlbench.profiling.rule import Rule
from vlbench.profiling.timing import Stage, measure, measure_one, once

CPU = torch.device("cpu")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def stage(self, name: str, *seconds: float, of: str = "") -> Stage:
        """Takes each of these durations in turn."""
        left = list(seconds)

        def run() -> None:
            self.log.append(of or name)
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
    assert once(stages, CPU) == ({"see": 1.5, "read": 0.25}, 1.75)


def test_models_in_turn_until_each_is_known(clock: Clock) -> None:
    sure = [clock.stage("a", 1.0, of="sure")]
    unsure = [clock.stage("b", *([1.0, 2.0] * 40), of="unsure")]
    told: list[tuple[int, int]] = []
    step: Callable[[int, int], None] = lambda done, total: told.append((done, total))  # noqa: E731
    found = measure({"sure": sure, "unsure": unsure}, Rule(3, 0.0, 0.02), 20.0, CPU, step, warmup=1)
    assert clock.log[:8] == ["sure", "unsure", "sure", "unsure", "unsure", "sure", "sure", "unsure"]
    assert (found["sure"].why, len(found["sure"].whole)) == ("precise", 3)
    assert found["unsure"].why == "out of time" and sum(found["unsure"].whole) > 15
    assert found["unsure"].warmup == [1.0] and found["sure"].rounds == [0, 1, 2]
    assert told[-1] == (2, 2)


def test_each_is_measured_twice_whatever_the_time(clock: Clock) -> None:
    found = measure({"slow": [clock.stage("a", 100.0)]}, Rule(10, 0.0, 0.02), 1.0, CPU, nothing)["slow"]
    assert found.whole == [100.0, 100.0] and found.why == "out of time"


def test_one_that_raises_is_left_behind(clock: Clock) -> None:
    calls = iter(range(10))

    def fails() -> None:
        clock.now += 1.0
        if next(calls) == 3:
            raise IndexError("out of range")

    subjects = {"bad": [Stage("a", fails)], "good": [clock.stage("b", 1.0)]}
    found = measure(subjects, Rule(6, 0.0, 0.02), 100.0, CPU, nothing, warmup=1)
    assert (found["bad"].whole, found["bad"].why) == ([1.0, 1.0], "failed")
    assert str(found["bad"].error) == "out of range" and found["good"].error is None
    assert (len(found["good"].whole), found["good"].why) == (6, "precise")
    with pytest.raises(StopIteration):
        measure_one([Stage("a", lambda: next(iter(())))], Rule(2, 0.0, 0.02), 1.0, CPU)


def test_what_stages_take_together(clock: Clock) -> None:
    stages = [clock.stage("decode", 5.0), clock.stage("see", 1.0, 1.0, 2.0, 3.0), clock.stage("fuse", 0.5)]
    found = measure({"m": stages}, Rule(2, 0.0, 10.0), 1.0, CPU, nothing)["m"]
    assert found.of(["see", "fuse"]) == [2.5, 3.5]
