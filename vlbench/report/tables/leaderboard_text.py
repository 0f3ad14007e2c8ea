"""A leaderboard as Markdown, HTML, LaTeX, CSV or JSON: the same bytes for the same records, whoever writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite

from vlbench.report.tables.aggregates import COSTS, Figure
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


def render(found: Board, form: str) -> str:
    """The board in one of FORMATS, without a newline at its end."""
    if form == "json":
        return json.dumps({"rows": _records(found), "notes": list(found.notes)}, allow_nan=False)
    if form == "csv":
        return _csv(found)
    markup = as_markup(form)
    parts = [PREAMBLE[markup]] if markup in PREAMBLE else []
    parts += [part for one in found.tables for part in _table(one, found.pareto, markup)]
    if found.notes:
        parts.append(paragraph([text(note, markup, 400) for note in found.notes], markup))
    return "\n\n".join(parts)


def _table(of: Table, pareto: str, markup: Markup) -> list[str]:
    headers = ["model", *(text(one.title, markup, 120) for one in of.headings), *(["ranks"] if of.ranked else [])]
    rows = [
        [
            text(row.name, markup),
            *(_cell(row.entries.get(one), markup) for one in of.headings),
            *([ranks_text(row, of.headings)] if of.ranked else []),
        ]
        for row in of.rows
    ]
    doubts = dict.fromkeys(
        f"({text(row.name, markup)} on {text(one.column.title, markup, 120)}: {text(entry.figure.doubt, markup, 300)})"
        for row in of.rows
        for one, entry in row.entries.items()
        if entry.figure.doubt
    )
    parts = [title(f"{text(of.data, markup)}, {text(of.protocol, markup)}", markup), table(headers, rows, markup)]
    return [*parts, paragraph([*legend(of, pareto, markup), *doubts], markup)]


def _cell(entry: Entry | None, markup: Markup) -> str:
    if entry is None:
        return "-"
    said = figure_text(entry.figure, markup)
    if entry.figure.doubt:
        return grey(said, markup, entry.figure.doubt)
    said = bold(said, markup) if entry.rank == 1 else said
    marks = [name for name, held in (("≈", entry.tie), ("◆", entry.front)) if held]
    return " ".join([said, *(sign(name, markup) for name in marks)])


def figure_text(of: Figure, markup: Markup) -> str:
    """The value and how far its interval reaches."""
    if not isfinite(of.value):
        return "no figure"
    reach = "" if of.reach is None else f" {sign('±', markup)} {of.reach:.2f}"
    return f"{of.value:.2f}{reach}"


def ranks_text(row: Row, headings: Sequence[Heading]) -> str:
    """The row's rank in each column of a metric, in their order: where they differ, tasks disagree on the model."""
    entries = [row.entries.get(one) for one in headings if one.metric not in BESIDE]
    return " / ".join("-" if entry is None or entry.rank is None else str(entry.rank) for entry in entries)


def legend(of: Table, pareto: str, markup: Markup) -> list[str]:
    """What the marks mean, as far as the table has them."""
    entries = [entry for row in of.rows for entry in row.entries.values()]
    seeds = sorted({len(entry.figure.seeds) for entry in entries if entry.figure.spread is not None})
    lines = []
    if any(entry.figure.reach is not None for entry in entries):
        source = "test sampling" + (
            f" and, over {' or '.join(map(str, seeds))} seeds, chance in training" if seeds else ""
        )
        lines.append(f"{sign('±', markup)}: how far the 95 % interval reaches, on its longer side, from {source}")
    if any(entry.tie for entry in entries):
        lines.append(f"{sign('≈', markup)}: within noise of the best; vlbench compare pairs examples and sees more")
    if pareto and any(entry.front for entry in entries):
        lines.append(f"{sign('◆', markup)}: no other is better in both this figure and {COSTS[pareto]}")
    return lines


def _records(found: Board) -> list[dict[str, object]]:
    """One flat record per figure, in the tables' order, full precision; no number where there is none."""
    rows: list[dict[str, object]] = []
    for one in found.tables:
        for row in one.rows:
            for heading, entry in row.entries.items():
                of = heading.column
                values = asdict(entry.figure) | {
                    "seeds": list(entry.figure.seeds),
                    "fingerprints": list(entry.figure.fingerprints),
                    "reach": entry.figure.reach,
                }
                place = {"data": of.data, "protocol": of.protocol, "task": of.task, "version": of.version}
                place |= {"split": of.split, "metric": heading.metric, "model": row.name}
                place |= {"rank": entry.rank, "tie": entry.tie, "front": entry.front}
                known = {
                    name: value if not isinstance(value, float) or isfinite(value) else None
                    for name, value in values.items()
                }
                rows.append({name: (place | known)[name] for name in _COLUMNS})
    return rows


def _csv(found: Board) -> str:
    """The records as comma-separated values; a spreadsheet shall not take a name for a formula."""
    import pandas as pd

    rows = [{name: _seen(value) for name, value in row.items()} for row in _records(found)]
    frame = pd.DataFrame(rows, columns=list(_COLUMNS)).astype({"rank": "Int64"})
    return str(frame.to_csv(index=False, lineterminator="\n")).rstrip("\n")


def _seen(value: object) -> object:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return as_csv(value) if isinstance(value, str) else value
