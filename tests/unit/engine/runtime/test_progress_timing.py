"""The throughput of several processes."""

from __future__ import annotations

import pytest

from vlbench.engine.runtime.progress_timing import Timing, examples_per_second


def test_throughput_of_one_process() -> None:
    assert examples_per_second([Timing([0.5, 1.0, 0.5], 30)]) == 15.0


def test_the_slowest_process_limits_the_throughput() -> None:
    even = [Timing([1.0, 1.0], 20), Timing([1.0, 1.0], 20)]
    assert examples_per_second(even) == 20.0
    uneven = [Timing([1.0, 3.0], 20), Timing([1.0, 1.0], 20)]
    assert examples_per_second(uneven) == 10.0


@pytest.mark.parametrize("idle", [1, 3])
def test_idle_processes_do_not_change_the_throughput(idle: int) -> None:
    assert examples_per_second([Timing([2.0], 10), *(Timing() for _ in range(idle))]) == 5.0


def test_nothing_answered() -> None:
    assert examples_per_second([Timing(), Timing()]) == 0.0
