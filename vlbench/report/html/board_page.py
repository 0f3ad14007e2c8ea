"""`vlbench leaderboard --format html`: the tables as a page to sort and to filter, with the picture of their fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

from vlbench.report.html.chart_models import Cell, Chart, Grid
from vlbench.report.html.fronts import front_charts
from vlbench.report.html.page import page
from vlbench.report.tables.leaderboard import Board, Entry, Heading, Row, Table
from vlbench.report.tables.leaderboard_text import figure_text, legend, ranks_text


@dataclass(frozen=True)
class TableView:
    """A table with its pictures."""

    grid: Grid
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class BoardView:
    """What the template shows. beside: tables of published figures, markup already."""

    tables: tuple[TableView, ...]
    notes: tuple[str, ...]
    beside: tuple[Markup, ...]


def board_page(found: Board, beside: Sequence[str] = ()) -> str:
    """The page of a leaderboard; beside: parts in HTML that come after it."""
    tables = tuple(TableView(_grid(one, found.pareto), tuple(front_charts(one, found.pareto))) for one in found.tables)
    view = BoardView(tables, found.notes, tuple(map(Markup, beside)))
    title = f"Leaderboard: {', '.join(found.tasks)}" if found.tasks else "Leaderboard"
    return page("board.html", title, view, ("tables.js",))


def _grid(of: Table, pareto: str) -> Grid:
    headers = ("model", *(one.title for one in of.headings), *(("ranks",) if of.ranked else ()))
    rows = tuple(_cells(row, of.headings, of.ranked) for row in of.rows)
    return Grid(f"{of.data}, {of.protocol}", headers, rows, tuple(legend(of, pareto, "html")))


def _cells(row: Row, headings: Sequence[Heading], ranked: bool) -> tuple[Cell, ...]:
    cells = (Cell(row.name), *(_cell(row.entries.get(one)) for one in headings))
    return (*cells, Cell(ranks_text(row, headings))) if ranked else cells


def _cell(entry: Entry | None) -> Cell:
    if entry is None:
        return Cell("–")
    of = entry.figure
    said = figure_text(of, "html")
    value = of.value if isfinite(of.value) else None
    if of.doubt:
        return Cell(f"({said})", value, kind="doubt", note=of.doubt)
    marks = "".join(f" {mark}" for mark, held in (("≈", entry.tie), ("◆", entry.front)) if held)
    return Cell(f"{said}{marks}", value, kind="best" if entry.rank == 1 else "")
