"""`vlbench report`: one run, or two runs on the same examples, as one page."""

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
from vlbench.records.samples import read_samples
from vlbench.report.compare.comparison import compare_runs
from vlbench.report.html.chart_models import Grid
from vlbench.report.html.examples import Examples, examples
from vlbench.report.html.page import page, script_json
from vlbench.report.html.provenance import costs, provenance
from vlbench.report.html.results import differences
from vlbench.report.html.run_section import Side, side
from vlbench.report.html.thumbnails import ReportImages
from vlbench.report.tables.protocol import model_name

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunView:
    """Content of the template by section; None or empty for what a run does not have."""

    sides: tuple[Side, ...]
    difference: Grid | None
    costs: Grid | None
    provenance: Grid
    examples: Examples | None
    data: Markup


def run_page(run: Path, other: Path | None, files: ReportImages, most: int = 2000) -> str:
    """The page of a run.

    run: a run's folder or its run.json. other: a run on the same examples to compare with, or None. files: the image
    files, or why they are not available. most: maximum number of examples, 0 or more.
    Raises VlbenchError: no run there, or runs that cannot be compared (exit 10).
    Raises DataError: a run's files are corrupt.
    """
    if most < 0:
        raise VlbenchError(f"--max-examples {most} is negative: give 0 or more")
    paths = [run] if other is None else [run, other]
    letters = ("",) if other is None else ("A", "B")
    folders, records = [RunFolder.open(path) for path in paths], [read_run(path) for path in paths]
    first = records[0]
    compared = None if other is None else compare_runs(paths, by=_main_tag(first))
    names = [system.name for system in compared.systems] if compared else [model_name(first)]
    rows = [_samples(folder) for folder in folders]
    sides = tuple(map(side, letters, names, folders, records, rows))
    probable = isinstance(sides[0].calibration, Calibration)
    shown = None
    if rows[0] is not None and most:
        pairs = zip(folders, records, strict=True)
        attention = [read_attention(folder.attention, record.fingerprint) for folder, record in pairs]
        shown = examples(rows[0], None if other is None else rows[1], names, files, most, attention, probable=probable)
    difference = differences(compared) if compared else None
    data = script_json(shown.payload if shown else None)
    view = RunView(sides, difference, costs(records), provenance(records), shown, data)
    title = f"{first.task.name} {first.task.split}: {' and '.join(names)}"
    return page("run.html", title, view, ("tables.js", "attention.js", "examples.js"))


def _main_tag(record: RunRecord) -> str:
    """The first tag of the main metric's slices; empty for none."""
    result = record.result(record.task.main_metric)
    return next(iter(result.slices), "") if result else ""


def _samples(folder: RunFolder) -> pd.DataFrame | None:
    return read_samples(folder.samples, controls=False) if folder.samples.is_file() else None
