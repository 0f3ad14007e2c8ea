"""Pareto fronts of a leaderboard: charts of its page, and the SVG file of `vlbench leaderboard --picture`."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from vlbench.core.errors import VlbenchError
from vlbench.report.drawing import chart_style, new_figure, svg_document
from vlbench.report.html.chart_models import Chart
from vlbench.report.html.charts import Point, draw_front, label_axes, pareto_chart
from vlbench.report.tables.aggregates import COSTS
from vlbench.report.tables.leaderboard import BESIDE, Board, Heading, Table

_WIDTH, _HEIGHT = 480, 320
"""Of the plot of one column, with its title, in SVG units."""
_ACROSS = 2


def front_charts(table: Table, pareto: str) -> list[Chart]:
    """A chart for each column of a metric; none where the board has no cost."""
    return [
        pareto_chart(heading.title, points, COSTS[pareto], heading.metric, pareto != "examples/s")
        for heading, points in _fronts(table, pareto)
    ]


def fronts_svg(board: Board) -> str:
    """All fronts of a leaderboard as one SVG file, two side by side; light or dark as the reader's screen is. Raises
    VlbenchError: the board was arranged without a cost, or no system has both a value and its cost.
    """
    fronts = [front for table in board.tables for front in _fronts(table, board.pareto)]
    if not fronts:
        whole = "give whole runs; limited, failed and outdated ones are not drawn"
        remedy = whole if board.pareto else "give --pareto latency"
        raise VlbenchError(f"--picture draws values over their costs, and there are none: {remedy}")
    columns, rows = min(len(fronts), _ACROSS), -(-len(fronts) // _ACROSS)
    width, height = columns * _WIDTH, rows * _HEIGHT
    with chart_style():
        figure = new_figure(width, height)
        for place, (heading, points) in enumerate(fronts):
            left, bottom = place % _ACROSS * _WIDTH + 58, (rows - 1 - place // _ACROSS) * _HEIGHT + 50
            axes = figure.add_axes((left / width, bottom / height, 408 / width, 240 / height))
            axes.set_title(heading.title, fontsize=12, fontweight="bold")
            label_axes(axes, COSTS[board.pareto], heading.metric)
            draw_front(axes, points)
        return svg_document(figure, "Values over costs: " + ", ".join(heading.title for heading, _ in fronts))


def _fronts(table: Table, pareto: str) -> Iterator[tuple[Heading, list[Point]]]:
    """The columns of metrics with the systems that have a finite value and cost there; columns without any left out."""
    for heading in table.headings if pareto else ():
        points = [
            Point(row.name, price.aggregate.value, entry.aggregate.value, entry.aggregate.reach, entry.front)
            for row, entry, price in table.priced(heading, pareto)
            if isfinite(price.aggregate.value) and isfinite(entry.aggregate.value)
        ]
        if points and heading.metric not in BESIDE:
            yield heading, points
