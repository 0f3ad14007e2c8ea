"""What the templates show: tables and charts; every text is still unescaped, every drawing is markup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Kind = Literal["", "best", "doubt", "differs"]
Style = Literal["solid", "dashed", "dotted"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table. value: what it is sorted by; None sorts last. drawing: shown instead of the text. heat: 0 to
    5, how dark it is. note: shown below the text.
    """

    text: str
    value: float | None = None
    drawing: Markup | None = None
    kind: Kind = ""
    heat: int = 0
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """A table. The first cell of a row names the row."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """A line of a chart, as its legend shows it. color: of the theme, `s1` to `s4`. style: of lines in matplotlib and
    of borders in CSS alike."""

    name: str
    color: str
    style: Style


@dataclass(frozen=True)
class Chart:
    """A chart. summary: the same in words, for readers who do not see it. drawing: what stands within its `<svg>`."""

    title: str
    summary: str
    drawing: Markup
    legend: tuple[Series, ...] = ()
