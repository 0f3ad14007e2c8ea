"""Which of several are worth their cost."""

from __future__ import annotations

from collections.abc import Sequence


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, worth) those for which no other is as cheap and better, or cheaper and as good; by cost, each once."""
    front: list[tuple[float, float]] = []
    for cost, worth in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or worth > front[-1][1]:
            front.append((cost, worth))
    return front
