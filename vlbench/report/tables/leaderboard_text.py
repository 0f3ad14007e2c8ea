"""A leaderboard as Markdown, HTML, LaTeX, CSV or JSON: the same records give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite

from vlbench.report.tables.aggregates import COSTS, Aggregate
from vlbench.report.tables.leaderboard import BESIDE, Board, Entry, Heading, Row, Table
from vlbench.report.tables.markup import (
    MARKUPS,
    PREAMBLE,
    Markup,
    as_csv,
    as_markup,
    bold,
    grey,
    paragraph,
    sign,
    table,
    text,
    title,
)  # fmt: skip

FORMATS = (*MARKUPS, "csv", "json")
_COLUMNS = (
    "data", "protocol", "task", "version", "split", "metric", "model", "fingerprints", "value", "reach", "seeds",
    "spread", "rank", "tie", "front", "doubt",
)  # fmt: skip


def render(board: Board, form: str) -> str:
    """The board in one of FORMATS, without a newline at its end."""
    if form == "json":
        return json.dumps({"rows": _records(board), "notes": list(board.notes)}, allow_nan=False)
    if form == "csv":
        return _csv(board)
    markup = as_markup(form)
    parts = [PREAMBLE[markup]] if markup in PREAMBLE else []
    parts += [part for one in board.tables for part in _table(one, board.pareto, markup)]
    if board.notes:
        parts.append(paragraph([text(note, markup, 400) for note in board.notes], markup))
    return "\n\n".join(parts)


def _table(board_table: Table, pareto: str, markup: Markup) -> list[str]:
    headers = [
        "model",
        *(text(heading.title, markup, 120) for heading in board_table.headings),
        *(["ranks"] if board_table.ranked else []),
    ]
    rows = [
        [
            text(row.name, markup),
            *(_cell(row.entries.get(heading), markup) for heading in board_table.headings),
            *([ranks_text(row, board_table.headings)] if board_table.ranked else []),
        ]
        for row in board_table.rows
    ]
    doubts = dict.fromkeys(
        f"({text(row.name, markup)} on {text(heading.column.title, markup, 120)}: "
        f"{text(entry.aggregate.doubt, markup, 300)})"
        for row in board_table.rows
        for heading, entry in row.entries.items()
        if entry.aggregate.doubt
    )
    parts = [
        title(f"{text(board_table.data, markup)}, {text(board_table.protocol, markup)}", markup),
        table(headers, rows, markup),
    ]
    return [*parts, paragraph([*legend(board_table, pareto, markup), *doubts], markup)]


def _cell(entry: Entry | None, markup: Markup) -> str:
    if entry is None:
        return "-"
    shown = value_text(entry.aggregate, markup)
    if entry.aggregate.doubt:
        return grey(shown, markup, entry.aggregate.doubt)
    shown = bold(shown, markup) if entry.rank == 1 else shown
    marks = [name for name, held in (("≈", entry.tie), ("◆", entry.front)) if held]
    return " ".join([shown, *(sign(name, markup) for name in marks)])


def value_text(aggregate: Aggregate, markup: Markup) -> str:
    """The value and the longer side of its interval."""
    if not isfinite(aggregate.value):
        return "no value"
    reach = "" if aggregate.reach is None else f" {sign('±', markup)} {aggregate.reach:.2f}"
    return f"{aggregate.value:.2f}{reach}"


def ranks_text(row: Row, headings: Sequence[Heading]) -> str:
    """The row's rank in each column of a metric, in order; different ranks mean that tasks disagree about the model."""
    entries = [row.entries.get(heading) for heading in headings if heading.metric not in BESIDE]
    return " / ".join("-" if entry is None or entry.rank is None else str(entry.rank) for entry in entries)


def legend(table: Table, pareto: str, markup: Markup) -> list[str]:
    """The meaning of the marks in the table."""
    entries = [entry for row in table.rows for entry in row.entries.values()]
    seeds = sorted({len(entry.aggregate.seeds) for entry in entries if entry.aggregate.spread is not None})
    lines = []
    if any(entry.aggregate.reach is not None for entry in entries):
        source = "test sampling" + (
            f" and, over {' or '.join(map(str, seeds))} seeds, variation in training" if seeds else ""
        )
        lines.append(f"{sign('±', markup)}: distance to the farther end of the 95 % confidence interval, from {source}")
    if any(entry.tie for entry in entries):
        lines.append(
            f"{sign('≈', markup)}: within noise of the best; vlbench compare pairs by example and is more sensitive"
        )
    if pareto and any(entry.front for entry in entries):
        lines.append(f"{sign('◆', markup)}: no other is better in both this value and {COSTS[pareto]}")
    return lines


def _records(board: Board) -> list[dict[str, object]]:
    """One flat record per value, in the tables' order, with full precision; None for a value that is not finite."""
    rows: list[dict[str, object]] = []
    for part in board.tables:
        for row in part.rows:
            for heading, entry in row.entries.items():
                values = asdict(heading.column) | asdict(entry) | asdict(entry.aggregate)
                values |= {"metric": heading.metric, "model": row.name, "reach": entry.aggregate.reach}
                values |= {name: list(values[name]) for name in ("seeds", "fingerprints")}
                known = {name: values[name] for name in _COLUMNS}
                infinite = [name for name, value in known.items() if isinstance(value, float) and not isfinite(value)]
                rows.append(known | dict.fromkeys(infinite))
    return rows


def _csv(board: Board) -> str:
    """The records as CSV; no spreadsheet reads a name as a formula."""
    import pandas as pd

    rows = [{name: _csv_cell(value) for name, value in row.items()} for row in _records(board)]
    frame = pd.DataFrame(rows, columns=list(_COLUMNS)).astype({"rank": "Int64"})
    return str(frame.to_csv(index=False, lineterminator="\n")).rstrip("\n")


def _csv_cell(value: object) -> object:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return as_csv(value) if isinstance(value, str) else value
