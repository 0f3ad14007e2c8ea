"""Figures of a profile as text: three digits that count."""

from __future__ import annotations


def number(value: float | None) -> str:
    """Three digits that count; a dash where there is none."""
    if value is None:
        return "-"
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def interval(value: float, ci95: tuple[float, float]) -> str:
    """A value with its 95 % interval."""
    return f"{number(value)} [{number(ci95[0])}, {number(ci95[1])}]"
