"""A record's figures as tables: the headline with its controls, the slices, and a comparison with another run."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from markupsafe import Markup

from vlbench.core.record import Result, RunRecord
from vlbench.metrics.direction import worth
from vlbench.report.compare.comparison import Comparison, Verdict
from vlbench.report.compare.text import methods, said
from vlbench.report.html.chart_models import Cell, Grid
from vlbench.report.html.charts import interval_strip
from vlbench.report.tables.results import above, interval, number, p_value, result_of, signed, telling, without_sight

_NONE = Cell("–")


def headline(record: RunRecord) -> Grid | None:
    """Every metric with its interval, and what is scored without sight; None where there are no results."""
    results = telling(record.results)
    if not results:
        return None
    unseen = "chance" if record.chance else "majority"
    controls = list(record.controls)
    rows = []
    for place, result in enumerate(results):
        baseline = record.chance.get(result.metric, record.majority if place == 0 else None)
        of_controls = [result_of(record.controls[name], result.metric) for name in controls]
        cells = [_figure(None if of is None else of.value) for of in of_controls]
        rows.append((*_measured(result.metric, result, baseline, _full(result)), _figure(baseline), *cells))
    headers = ("metric", "value", "", "95 % interval", "n", unseen, *(f"{name} control" for name in controls))
    methods = dict.fromkeys(result.method for result in results if result.method and result.ci95)
    notes = [f"95 % interval: {'; '.join(methods)}"] if methods else []
    lower = [result.metric for result in results if not result.higher_is_better]
    return Grid("Figures", headers, tuple(rows), (*notes, *([f"lower is better: {', '.join(lower)}"] if lower else [])))


def slices(record: RunRecord) -> list[Grid]:
    """A table for each metric and tag, the main metric first."""
    return [
        _slices(record, result, tag, values)
        for result in telling(record.results)
        for tag, values in result.slices.items()
    ]


def differences(found: Comparison) -> Grid:
    """B against A over all examples and in each part."""
    pair = found.pairs[0]
    headers = ("examples", "A", "B", "B − A", "95 % interval", "p", "p (Holm)", "detectable", "n")
    rows = (_verdict(pair.overall, _NONE), *(_verdict(one, _p(one.holm)) for one in pair.slices))
    lower = [] if found.higher_is_better else [f"{found.metric}: lower is better"]
    return Grid(
        f"B against A by {found.metric}",
        headers,
        rows,
        (said(pair.overall.difference), methods(pair), *lower, *found.notes),
    )


def _verdict(one: Verdict, holm: Cell) -> tuple[Cell, ...]:
    found = one.difference
    reach = f"[{signed(found.low)}, {signed(found.high)}]" if isfinite(found.low) else "–"
    return (
        Cell(one.part), _figure(one.a), _figure(one.b), Cell(signed(found.effect), found.effect), Cell(reach),
        _p(found.p), holm, _figure(found.detectable), _count(found.n),
    )  # fmt: skip


def _p(value: float) -> Cell:
    return Cell(p_value(value), value)


def _slices(record: RunRecord, result: Result, tag: str, values: Mapping[str, Result]) -> Grid:
    controls = {name: result_of(of, result.metric) for name, of in record.controls.items()}
    # Majorities are of the main metric, the first one.
    majorities = record.slice_majorities if result is record.results[0] else {}
    unseen = without_sight(tag, controls, majorities)
    full = max(map(_full, [result, *values.values()]))
    rows = []
    for value, part in values.items():
        known = [of[value] for of in unseen.values() if value in of]
        note = "" if tag not in majorities or above(part, value, unseen) else "not above what is scored without sight"
        best = max(known, key=lambda value: worth(value, part.higher_is_better), default=None)
        name, *cells = _measured(value, part, best, full)
        rows.append((Cell(name.text, note=note), *cells, *(_figure(of.get(value)) for of in unseen.values())))
    return Grid(f"{result.metric} by {tag}", (tag, result.metric, "", "95 % interval", "n", *unseen), tuple(rows))


def _measured(name: str, result: Result, baseline: float | None, full: float) -> tuple[Cell, ...]:
    reach = interval(result) if result.ci95 else _NONE.text
    strip = Cell("", drawing=_strip(result, baseline, full))
    return Cell(name), _figure(result.value), strip, Cell(reach), _count(result.n)


def _strip(result: Result, baseline: float | None, full: float) -> Markup | None:
    ends = result.ci95 or (result.value, result.value)
    if not all(map(isfinite, (result.value, *ends))) or min(result.value, *ends) < 0 or not result.higher_is_better:
        return None  # a rank has no whole scale
    low, high = (round(100 * min(end, full) / full, 1) if result.ci95 else None for end in ends)
    unseen = None if baseline is None or not 0 <= baseline <= full else round(100 * baseline / full, 1)
    return interval_strip(round(100 * result.value / full, 1), low, high, unseen)


def _full(result: Result) -> float:
    """The end of a figure's scale: 100 %, or what it reaches where it is no share."""
    known = [value for value in (result.value, *(result.ci95 or ())) if isfinite(value)]
    return next((scale for scale in (100.0, 600.0) if max(known, default=0.0) <= scale), max(known, default=100.0))


def _figure(value: float | None) -> Cell:
    if value is None:
        return _NONE
    return Cell(number(value), value if isfinite(value) else None)


def _count(n: int) -> Cell:
    return Cell(f"{n:,}", n)
