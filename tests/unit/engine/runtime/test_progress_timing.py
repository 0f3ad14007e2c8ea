"""How many examples a second several processes answered together."""

from __future__ import annotations

import pytest

from vlbench.engine.runtime.progress_timing import Timing, examples_per_second


def test_one_process_counts_all_it_did() -> None:
    assert examples_per_second([Timing([0.5, 1.0, 0.5], 30)]) == 15.0


def test_the_slowest_process_counts() -> None:
    even = [Timing([1.0, 1.0], 20), Timing([1.0, 1.0], 20)]
    assert examples_per_second(even) == 20.0
    uneven = [Timing([1.0, 3.0], 20), Timing([1.0, 1.0], 20)]
    assert examples_per_second(uneven) == 10.0


@pytest.mark.parametrize("idle", [1, 3])
def test_who_has_nothing_to_do_makes_nobody_faster(idle: int) -> None:
    assert examples_per_second([Timing([2.0], 10), *(Timing() for _ in range(idle))]) == 5.0


def test_nothing_answered() -> None:
    assert examples_per_second([Timing(), Timing()]) == 0.0
