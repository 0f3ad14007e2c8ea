"""Results of a record as tables: metrics with controls, slices, and a comparison with another run."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from markupsafe import Markup

from vlbench.core.record import Result, RunRecord
from vlbench.metrics.direction import worth
from vlbench.report.compare.comparison import Comparison, Verdict
from vlbench.report.compare.text import conclusion, methods
from vlbench.report.html.chart_models import Cell, Grid
from vlbench.report.html.charts import interval_strip
from vlbench.report.tables.results import (
    blind_baselines,
    interval,
    is_above,
    number,
    p_value,
    result_of,
    signed,
    without_equal_ties,
)

_NONE = Cell("–")
_NOT_ABOVE = "not significantly above the image-blind baseline"


def headline(record: RunRecord) -> Grid | None:
    """Every metric with its interval and its image-blind baselines; None if there are no results."""
    results = without_equal_ties(record.results)
    if not results:
        return None
    unseen = "random ranking" if record.chance else "majority"
    controls = list(record.controls)
    rows = []
    for place, result in enumerate(results):
        baseline = record.chance.get(result.metric, record.majority if place == 0 else None)
        of_controls = [result_of(record.controls[name], result.metric) for name in controls]
        cells = [_number(None if control is None else control.value) for control in of_controls]
        rows.append((*_measured(result.metric, result, baseline, _full(result)), _number(baseline), *cells))
    headers = ("metric", "value", "", "95 % interval", "n", unseen, *(f"{name} control" for name in controls))
    methods_used = dict.fromkeys(result.method for result in results if result.method and result.ci95)
    notes = [f"95 % interval: {'; '.join(methods_used)}"] if methods_used else []
    lower = [result.metric for result in results if not result.higher_is_better]
    return Grid("Scores", headers, tuple(rows), (*notes, *([f"lower is better: {', '.join(lower)}"] if lower else [])))


def slices(record: RunRecord) -> list[Grid]:
    """A table for each metric and tag, the main metric first."""
    return [
        _slices(record, result, tag, values)
        for result in without_equal_ties(record.results)
        for tag, values in result.slices.items()
    ]


def differences(comparison: Comparison) -> Grid:
    """Comparison of B with A over all examples and in each slice."""
    pair = comparison.pairs[0]
    headers = ("examples", "A", "B", "B − A", "95 % interval", "p", "p (Holm)", "detectable", "n")
    rows = (_verdict(pair.overall, _NONE), *(_verdict(verdict, _p(verdict.holm)) for verdict in pair.slices))
    lower = [] if comparison.higher_is_better else [f"{comparison.metric}: lower is better"]
    notes = (conclusion(pair.overall.difference), methods(pair), *lower, *comparison.notes)
    return Grid(f"B compared with A by {comparison.metric}", headers, rows, notes)


def _verdict(verdict: Verdict, holm: Cell) -> tuple[Cell, ...]:
    difference = verdict.difference
    reach = f"[{signed(difference.low)}, {signed(difference.high)}]" if isfinite(difference.low) else "–"
    return (
        Cell(verdict.part), _number(verdict.a), _number(verdict.b),
        Cell(signed(difference.effect), difference.effect), Cell(reach),
        _p(difference.p), holm, _number(difference.detectable), _count(difference.n),
    )  # fmt: skip


def _p(value: float) -> Cell:
    return Cell(p_value(value), value)


def _slices(record: RunRecord, result: Result, tag: str, values: Mapping[str, Result]) -> Grid:
    controls = {name: result_of(scores, result.metric) for name, scores in record.controls.items()}
    # Majorities are of the main metric, the first one.
    majorities = record.slice_majorities if result is record.results[0] else {}
    unseen = blind_baselines(tag, controls, majorities)
    full = max(map(_full, [result, *values.values()]))
    rows = []
    for value, part in values.items():
        known = [scores[value] for scores in unseen.values() if value in scores]
        note = _NOT_ABOVE if tag in majorities and not is_above(part, value, unseen) else ""
        best = max(known, key=lambda value: worth(value, part.higher_is_better), default=None)
        name, *cells = _measured(value, part, best, full)
        rows.append((Cell(name.text, note=note), *cells, *(_number(scores.get(value)) for scores in unseen.values())))
    return Grid(f"{result.metric} by {tag}", (tag, result.metric, "", "95 % interval", "n", *unseen), tuple(rows))


def _measured(name: str, result: Result, baseline: float | None, full: float) -> tuple[Cell, ...]:
    reach = interval(result) if result.ci95 else _NONE.text
    strip = Cell("", drawing=_strip(result, baseline, full))
    return Cell(name), _number(result.value), strip, Cell(reach), _count(result.n)


def _strip(result: Result, baseline: float | None, full: float) -> Markup | None:
    ends = result.ci95 or (result.value, result.value)
    if not all(map(isfinite, (result.value, *ends))) or min(result.value, *ends) < 0 or not result.higher_is_better:
        return None  # a rank has no fixed scale
    low, high = (round(100 * min(end, full) / full, 1) if result.ci95 else None for end in ends)
    unseen = None if baseline is None or not 0 <= baseline <= full else round(100 * baseline / full, 1)
    return interval_strip(round(100 * result.value / full, 1), low, high, unseen)


def _full(result: Result) -> float:
    """The end of a value's scale: 100 %, 600 for rsum, or the largest value."""
    known = [value for value in (result.value, *(result.ci95 or ())) if isfinite(value)]
    return next((scale for scale in (100.0, 600.0) if max(known, default=0.0) <= scale), max(known, default=100.0))


def _number(value: float | None) -> Cell:
    return _NONE if value is None else Cell(number(value), value if isfinite(value) else None)


def _count(n: int) -> Cell:
    return Cell(f"{n:,}", n)
