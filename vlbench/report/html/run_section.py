"""One run of a page: its scores, statistics of its answers, and its training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlbench.core.record import RunRecord
from vlbench.core.results import Ranking
from vlbench.metrics.calibration import Calibration
from vlbench.records.folder import RunFolder
from vlbench.records.rankings import read_rankings
from vlbench.report.html.answers import bins_table, calibrate, confusion, rank_charts
from vlbench.report.html.chart_models import Chart, Grid
from vlbench.report.html.charts import reliability_chart
from vlbench.report.html.curves import training_charts
from vlbench.report.html.provenance import spec
from vlbench.report.html.results import headline, slices
from vlbench.report.tables.results import heading

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Side:
    """Content of the template for one run; None or empty for what it does not have. letter: A or B, which also marks
    its tables and charts; empty if there is one run. remarks: the run's heading and warnings. calibration: a sentence
    with the reason if there is none.
    """

    letter: str
    name: str
    remarks: tuple[str, ...]
    scores: Grid | None
    slices: tuple[Grid, ...]
    calibration: Calibration | str
    reliability: Chart | None
    bins: Grid | None
    confusion: Grid | None
    ranks: tuple[Chart, ...]
    training: tuple[Chart, ...]
    spec: str


def side(letter: str, name: str, folder: RunFolder, record: RunRecord, rows: pd.DataFrame | None) -> Side:
    """The section of a run; rows: its samples without controls, None if there is no such file. Raises DataError: the
    run's ranks are corrupt.
    """
    rankings = read_rankings(folder.ranks, ()) if folder.ranks.is_file() else []
    answer = _calibration(rows, rankings)
    known = answer if isinstance(answer, Calibration) else None
    scores = headline(record)
    confused = None if rows is None or rankings else confusion(rows)
    trained = training_charts(folder.metrics, record.task.main_metric or "score")
    return Side(
        letter=letter,
        name=name,
        remarks=tuple(heading(record).replace("\\|", "|").splitlines()),
        scores=_table(letter, scores) if scores else None,
        slices=tuple(_table(letter, grid) for grid in slices(record)),
        calibration=answer,
        reliability=_chart(letter, reliability_chart(known)) if known else None,
        bins=_table(letter, bins_table(known)) if known else None,
        confusion=_table(letter, confused) if confused else None,
        ranks=tuple(_chart(letter, chart) for chart in rank_charts(rankings)),
        training=tuple(_chart(letter, chart) for chart in trained),
        spec=spec(record),
    )


def _calibration(rows: pd.DataFrame | None, rankings: list[Ranking]) -> Calibration | str:
    if rankings:
        return "Scores of a ranking are not probabilities of answers."
    return "There are no answers." if rows is None else calibrate(rows)


def _table(letter: str, grid: Grid) -> Grid:
    return replace(grid, caption=f"{letter}: {grid.caption}") if letter else grid


def _chart(letter: str, chart: Chart) -> Chart:
    return replace(chart, title=f"{letter}: {chart.title}") if letter else chart
