"""Figures of a profile as text: three significant digits."""

from __future__ import annotations

from math import floor, log10

_DIGITS = 3
_SMALLEST = 1e-4
"""Below it so many zeros would come first that a power of ten is easier to read."""


def number(value: float | None) -> str:
    """Three significant digits, or all before the point where there are more; a dash where there is no value."""
    if value is None:
        return "-"
    rounded = float(f"{value:.{_DIGITS}g}")  # first of all, so that 99.96 is 100 and not 100.0
    if rounded == 0 or abs(rounded) >= 100:
        return f"{value:,.0f}"
    if abs(rounded) < _SMALLEST:
        return f"{value:.{_DIGITS - 1}e}"
    return f"{value:.{_DIGITS - 1 - floor(log10(abs(rounded)))}f}"


def interval(value: float, ci95: tuple[float, float]) -> str:
    """A value with its 95 % interval."""
    return f"{number(value)} [{number(ci95[0])}, {number(ci95[1])}]"
