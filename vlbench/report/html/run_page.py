"""`vlbench report`: everything about a run, or about two on the same examples, as one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from vlbench.core.errors import VlbenchError
from vlbench.core.record import RunRecord
from vlbench.metrics.calibration import Calibration
from vlbench.records.attention import read_attention
from vlbench.records.folder import RunFolder, read_run
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples
from vlbench.report.compare import compare_runs
from vlbench.report.html.answers import bins_table, calibrated, confusion, rank_charts
from vlbench.report.html.charts import reliability_chart
from vlbench.report.html.curves import training_charts
from vlbench.report.html.examples import Examples, examples
from vlbench.report.html.page import page, script_json
from vlbench.report.html.provenance import costs, provenance, spec
from vlbench.report.html.results import differences, headline, slices
from vlbench.report.html.thumbnails import PictureFiles
from vlbench.report.html.views import Chart, Grid
from vlbench.report.protocol import model_name
from vlbench.report.tables import heading

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Side:
    """One run: its letter, its name, what makes its number less than whole, its figures."""

    letter: str
    name: str
    remarks: tuple[str, ...]
    figures: Grid | None


@dataclass(frozen=True)
class RunView:
    """What the template shows, section by section; what a run does not have is None or empty."""

    subject: str
    sides: tuple[Side, ...]
    difference: Grid | None
    slices: tuple[Grid, ...]
    calibration: Calibration | str
    reliability: Chart | None
    bins: Grid | None
    confusion: Grid | None
    ranks: tuple[Chart, ...]
    training: tuple[Chart, ...]
    costs: Grid | None
    provenance: Grid
    spec: str
    examples: Examples | None
    data: Markup


def run_page(run: Path, other: Path | None, files: PictureFiles, most: int = 2000) -> str:
    """The page of a run.

    Args:
        run: a run's folder or its run.json.
        other: a run on the same examples to compare with, or None.
        files: where the pictures are, or why they are not at hand.
        most: examples shown, 0 or more.

    Raises:
        VlbenchError: no run there, or runs that cannot be compared (exit 10).
        DataError: a run's files are corrupt.
    """
    if most < 0:
        raise VlbenchError(f"--max-examples {most} shows less than nothing: give 0 or more")
    view = _view(run, other, files, most)
    return page("run.html", f"{view.subject}: {' and '.join(side.name for side in view.sides)}", view,
                ("tables.js", "attention.js", "examples.js"))  # fmt: skip


def _view(run: Path, other: Path | None, files: PictureFiles, most: int) -> RunView:
    folder, record = RunFolder.open(run), read_run(run)
    records = [record] if other is None else [record, read_run(other)]
    task = record.task
    difference = None if other is None else differences(compare_runs([run, other], by=_main_tag(record)))
    rows = _samples(folder)
    rankings = read_rankings(folder.ranks, ()) if folder.ranks.is_file() else []
    found: Calibration | str = (
        "Scores of a ranking are no probabilities of answers." if rankings else "There are no answers."
    )
    if rows is not None and not rankings:
        found = calibrated(rows)
    known = found if isinstance(found, Calibration) else None
    names = [model_name(of) for of in records]
    shown = None
    if rows is not None and most:
        of_b = None if other is None else _samples(RunFolder.open(other))
        attention = [
            read_attention(RunFolder.open(path).attention, of.fingerprint)
            for path, of in zip((run, other), records, strict=False)
            if path is not None
        ]
        shown = examples(rows, of_b, names, files, most, attention, probable=known is not None)
    return RunView(
        subject=f"{task.name} {task.split}",
        sides=tuple(_side(letter, of) for letter, of in zip("AB", records, strict=False)),
        difference=difference,
        slices=tuple(slices(record)),
        calibration=found,
        reliability=reliability_chart(known) if known else None,
        bins=bins_table(known) if known else None,
        confusion=None if rows is None or rankings else confusion(rows),
        ranks=tuple(rank_charts(rankings)),
        training=tuple(training_charts(folder.metrics, task.main_metric or "figure")),
        costs=costs(records),
        provenance=provenance(records),
        spec=spec(record),
        examples=shown,
        data=script_json(shown.payload if shown else None),
    )


def _side(letter: str, record: RunRecord) -> Side:
    subject, *remarks = heading(record).replace("\\|", "|").splitlines()
    return Side(letter, model_name(record), (subject, *remarks), headline(record))


def _main_tag(record: RunRecord) -> str:
    """The first tag that the main metric is cut by; empty for none."""
    result = record.result(record.task.main_metric)
    return next(iter(result.slices), "") if result else ""


def _samples(folder: RunFolder) -> pd.DataFrame | None:
    if not folder.samples.is_file():
        return None
    rows = read_samples(folder.samples)
    return rows[rows["control"] == ""]
