"""The front: what nothing beats in both cost and worth."""

from __future__ import annotations

from vlbench.report.tables.pareto import pareto


def test_the_front() -> None:
    points = [(3.0, 70.0), (1.0, 60.0), (2.0, 50.0), (1.0, 55.0), (4.0, 70.0), (5.0, 80.0)]
    assert pareto(points) == [(1.0, 60.0), (3.0, 70.0), (5.0, 80.0)]
