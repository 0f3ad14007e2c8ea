"""What the templates show: tables and charts as plain values, every text still unescaped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["", "best", "doubt", "differs"]
WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 466, 12, 252
"""The plot's frame within a chart."""


@dataclass(frozen=True)
class Strip:
    """A value with its interval and what is scored without sight, drawn on one line; all in [0, 100]."""

    value: float
    low: float | None = None
    high: float | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class Cell:
    """A cell. value: what it is sorted by; None sorts last. heat: 0 to 5, how dark it is. note: said with it."""

    text: str
    value: float | None = None
    strip: Strip | None = None
    kind: Kind = ""
    heat: int = 0
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """A table. The first cell of a row is what the row is of."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, in the chart's own units from the left or the top."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A line through points, as SVG wants them. series: 0 for aids, 1 and more for what is named in the legend."""

    name: str
    points: str
    series: int


@dataclass(frozen=True)
class Bar:
    """A bar with its label said on top."""

    x: float
    y: float
    width: float
    height: float
    label: str
    series: int = 1


@dataclass(frozen=True)
class Dot:
    """A point with its name; low and high: the ends of its interval."""

    x: float
    y: float
    label: str
    low: float | None = None
    high: float | None = None
    named: bool = False
    series: int = 1


@dataclass(frozen=True)
class Chart:
    """A chart of WIDTH by HEIGHT. summary: in words, for those who do not see it."""

    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    dots: tuple[Dot, ...] = ()

    @property
    def legend(self) -> tuple[tuple[int, str], ...]:
        """Series and name of all that has a name, where there is more than one to tell apart."""
        named = tuple((line.series, line.name) for line in self.lines if line.name and line.series)
        return named if len(named) > 1 else ()
