"""Statistics of a run's answers: calibration, confusion and ranks, over all examples and not only those shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import isnan
from typing import TYPE_CHECKING

from vlbench.core.results import Ranking
from vlbench.metrics.calibration import Calibration, calibration
from vlbench.report.html.chart_models import Cell, Chart, Grid
from vlbench.report.html.charts import bar_chart

if TYPE_CHECKING:
    import pandas as pd

_LABELS = 20
"""Number of labels up to which the confusion table is shown."""
_RANKS = (1, 2, 5, 10, 20, 50, 100)
_DIRECTIONS = {"i2t": "Texts for an image", "t2i": "Images for a text"}


def calibrate(rows: pd.DataFrame) -> Calibration | str:
    """Calibration of the confidences; a sentence with the reason if there is none."""
    known = rows[rows["confidence"].notna() & rows["score"].notna()]
    if not len(known):
        return "No example has both a confidence and a score."
    confidences = [float(value) for value in known["confidence"]]
    if not all(0 <= value <= 1 for value in confidences):
        return "The confidences of this run are not probabilities."
    return calibration(confidences, [float(value) for value in known["score"]])


def bins_table(calibration: Calibration) -> Grid:
    """The bins as a table."""
    rows = [
        (
            Cell(f"{each.low:.2f} to {each.high:.2f}"), Cell(f"{each.n:,}", each.n),
            Cell(f"{each.confidence:.3f}", each.confidence), Cell(f"{each.accuracy:.3f}", each.accuracy),
        )
        for each in calibration.bins
    ]  # fmt: skip
    return Grid("Bins of confidence", ("confidence", "n", "mean confidence", "accuracy"), tuple(rows))


def confusion(rows: pd.DataFrame) -> Grid | None:
    """Confusion table of labels and answers; None if references are not labels of a short list."""
    references = [_label(reference) for reference in rows["reference"]]
    pairs = zip(rows["prediction"], rows["status"], strict=True)
    answers = [answer if status == "ok" else f"({status})" for answer, status in pairs]
    labels = sorted({label for label in references if label is not None})
    if not labels or None in references or len({*labels, *answers}) > _LABELS:
        return None
    counts = Counter(zip(references, answers, strict=True))
    columns = [*labels, *sorted({*answers} - {*labels})]
    cells_by_row = []
    for label in labels:
        total = sum(counts[label, answer] for answer in columns)
        cells = [_confused(counts[label, answer], total, label == answer) for answer in columns]
        cells_by_row.append((Cell(label), *cells, Cell(f"{total:,}", total)))
    return Grid("Reference by answer", ("reference", *columns, "all"), tuple(cells_by_row), ("A row is a reference.",))


def rank_charts(rankings: Sequence[Ranking]) -> list[Chart]:
    """Histograms of the rank of the best positive in each direction; ties count against it."""
    charts = []
    for direction, title in _DIRECTIONS.items():
        places = [ranking.rank_high + 1 for ranking in rankings if ranking.direction == direction]
        if places:
            counts = _counted(places)
            summary = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
            charts.append(bar_chart(title, f"{len(places):,} queries by rank: {summary}.", "rank", "queries", counts))
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
    for below, place in pairwise((0, *_RANKS)):
        name = f"{place}" if place == below + 1 else f"{below + 1}–{place}"
        counts[name] = sum(below < rank <= place for rank in places)
    return counts | {f"> {_RANKS[-1]}": sum(rank > _RANKS[-1] for rank in places)}


def number_or_none(value: float | None) -> float | None:
    """A number of a table of samples; None where it is missing or NaN."""
    return None if value is None or isnan(value) else float(value)
