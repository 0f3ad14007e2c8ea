"""`vlbench leaderboard --format html`: tables to sort and filter, with charts of their Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

from vlbench.report.html.chart_models import Cell, Chart, Grid
from vlbench.report.html.fronts import front_charts
from vlbench.report.html.page import page
from vlbench.report.tables.leaderboard import Board, Entry, Heading, Row, Table
from vlbench.report.tables.leaderboard_text import legend, ranks_text, value_text


@dataclass(frozen=True)
class TableView:
    """A table with its charts."""

    grid: Grid
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class BoardView:
    """Content of the template. further: tables of published results, markup already."""

    tables: tuple[TableView, ...]
    notes: tuple[str, ...]
    further: tuple[Markup, ...]


def board_page(board: Board, further: Sequence[str] = ()) -> str:
    """The page of a leaderboard; further: HTML parts shown after it."""
    tables = tuple(
        TableView(_grid(table, board.pareto), tuple(front_charts(table, board.pareto))) for table in board.tables
    )
    view = BoardView(tables, board.notes, tuple(map(Markup, further)))
    title = f"Leaderboard: {', '.join(board.tasks)}" if board.tasks else "Leaderboard"
    return page("board.html", title, view, ("tables.js",))


def _grid(table: Table, pareto: str) -> Grid:
    headers = ("model", *(heading.title for heading in table.headings), *(("ranks",) if table.ranked else ()))
    rows = tuple(_cells(row, table.headings, table.ranked) for row in table.rows)
    return Grid(f"{table.data}, {table.protocol}", headers, rows, tuple(legend(table, pareto, "html")))


def _cells(row: Row, headings: Sequence[Heading], ranked: bool) -> tuple[Cell, ...]:
    cells = (Cell(row.name), *(_cell(row.entries.get(heading)) for heading in headings))
    return (*cells, Cell(ranks_text(row, headings))) if ranked else cells


def _cell(entry: Entry | None) -> Cell:
    if entry is None:
        return Cell("–")
    aggregate = entry.aggregate
    shown = value_text(aggregate, "html")
    value = aggregate.value if isfinite(aggregate.value) else None
    if aggregate.doubt:
        return Cell(f"({shown})", value, kind="doubt", note=aggregate.doubt)
    marks = "".join(f" {mark}" for mark, held in (("≈", entry.tie), ("◆", entry.front)) if held)
    return Cell(f"{shown}{marks}", value, kind="best" if entry.rank == 1 else "")
