"""What a run's answers look like all together: calibration, confusion, ranks. Over all examples, not those shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from vlbench.core.results import Ranking
from vlbench.metrics.calibration import Calibration, calibration
from vlbench.report.html.chart_models import Cell, Chart, Grid
from vlbench.report.html.charts import bar_chart

if TYPE_CHECKING:
    import pandas as pd

_LABELS = 20
"""More labels than these make no table that can be read."""
_PLACES = (1, 2, 5, 10, 20, 50, 100)
_DIRECTIONS = {"i2t": "Texts for a picture", "t2i": "Pictures for a text"}


def calibrated(rows: pd.DataFrame) -> Calibration | str:
    """Confidence against what is right; a sentence where it cannot be known."""
    known = rows[rows["confidence"].notna() & rows["score"].notna()]
    if not len(known):
        return "No example has both a confidence and a score."
    confidences = [float(value) for value in known["confidence"]]
    if not all(0 <= value <= 1 for value in confidences):
        return "Confidences of this run are no probabilities."
    return calibration(confidences, [float(value) for value in known["score"]])


def bins_table(found: Calibration) -> Grid:
    """The bins in figures."""
    rows = [
        (
            Cell(f"{one.low:.2f} to {one.high:.2f}"), Cell(f"{one.n:,}", one.n),
            Cell(f"{one.confidence:.3f}", one.confidence), Cell(f"{one.accuracy:.3f}", one.accuracy),
        )
        for one in found.bins
    ]  # fmt: skip
    return Grid("Bins of confidence", ("confidence", "n", "mean confidence", "share right"), tuple(rows))


def confusion(rows: pd.DataFrame) -> Grid | None:
    """How often each label was answered with which; None where references are no labels of a short list."""
    references = [_label(reference) for reference in rows["reference"]]
    said = [
        answer if status == "ok" else f"({status})"
        for answer, status in zip(rows["prediction"], rows["status"], strict=True)
    ]
    labels = sorted({label for label in references if label is not None})
    if not labels or None in references or len({*labels, *said}) > _LABELS:
        return None
    counts = Counter(zip(references, said, strict=True))
    columns = [*labels, *sorted({*said} - {*labels})]
    made = []
    for label in labels:
        total = sum(counts[label, answer] for answer in columns)
        cells = [_confused(counts[label, answer], total, label == answer) for answer in columns]
        made.append((Cell(label), *cells, Cell(f"{total:,}", total)))
    return Grid("Reference by answer", ("reference", *columns, "all"), tuple(made), ("A row is a reference.",))


def rank_charts(rankings: Sequence[Ranking]) -> list[Chart]:
    """Where the best right answer stands, in each direction; ties count against it."""
    charts = []
    for direction, title in _DIRECTIONS.items():
        places = [one.rank_high + 1 for one in rankings if one.direction == direction]
        if places:
            counts = _counted(places)
            said = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
            charts.append(bar_chart(title, f"{len(places):,} queries by rank: {said}.", "rank", "queries", counts))
    return charts


def _confused(count: int, total: int, right: bool) -> Cell:
    share = count / total if total else 0.0
    return Cell(f"{count:,}", count, heat=min(5, round(5 * share)), note=f"{share:.0%}{', right' if right else ''}")


def _label(reference: str) -> str | None:
    values = json.loads(reference)
    value = values.get("value") if isinstance(values, dict) and len(values) == 1 else None
    return value if isinstance(value, str) else None


def _counted(places: Sequence[int]) -> dict[str, int]:
    counts = {}
    below = 0
    for place in _PLACES:
        name = f"{place}" if place == below + 1 else f"{below + 1}–{place}"
        counts[name] = sum(below < one <= place for one in places)
        below = place
    return counts | {f"> {below}": sum(one > below for one in places)}


def number_or_none(value: float | None) -> float | None:
    """A number of a table of samples; None where it is missing or NaN."""
    return None if value is None or isnan(value) else float(value)
