"""`vlbench leaderboard --picture`: figures over what they cost as one SVG file, for pages that show Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from vlbench.core.errors import VlbenchError
from vlbench.report.html.board_page import fronts
from vlbench.report.html.chart_models import Chart
from vlbench.report.html.page import rendered
from vlbench.report.tables.leaderboard import Board

_WIDTH, _HEIGHT = 480, 320
"""Of one field, its title among it."""
_ACROSS = 2


@dataclass(frozen=True)
class Field:
    """A chart and the place of its upper left corner."""

    chart: Chart
    x: int
    y: int


@dataclass(frozen=True)
class Picture:
    """What the template draws."""

    width: int
    height: int
    fields: tuple[Field, ...]


def fronts_picture(found: Board) -> str:
    """All fronts of a leaderboard, two side by side; light or dark as the reader's screen is.

    Raises:
        VlbenchError: the board was arranged without a cost, or no system has both a figure and what it cost.
    """
    charts = [chart for table in found.tables for chart in fronts(table, found.pareto)]
    if not charts:
        remedy = (
            "give whole runs; limited, failed and outdated ones are not drawn"
            if found.pareto
            else "give --pareto latency"
        )
        raise VlbenchError(f"--picture draws figures over what they cost, and there are none: {remedy}")
    fields = tuple(
        Field(chart, number % _ACROSS * _WIDTH, number // _ACROSS * _HEIGHT) for number, chart in enumerate(charts)
    )
    width, rows = min(len(charts), _ACROSS) * _WIDTH, -(-len(charts) // _ACROSS)
    title = "Figures over what they cost: " + ", ".join(chart.title for chart in charts)
    return rendered("fronts.svg", title, Picture(width, rows * _HEIGHT, fields))
