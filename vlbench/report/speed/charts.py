"""Charts of a profile: milliseconds by stage, and metrics over latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

from vlbench import catalog
from vlbench.core.errors import first_five
from vlbench.core.profile import PIPELINE, REST, ModelProfile, ProfileRecord
from vlbench.core.record import RunRecord
from vlbench.metrics.direction import worth
from vlbench.records.collect import FoundRun
from vlbench.report.drawing import add_tooltip, chart_style, new_figure, save_figure
from vlbench.report.html.charts import Point, draw_front, label_axes
from vlbench.report.tables.aggregates import aggregate, pareto
from vlbench.report.tables.markup import visible
from vlbench.report.tables.protocol import Column, newest
from vlbench.report.tables.system_names import placed

_WIDTH = 504
"""Of a plot, in SVG units."""
_LONGEST_NAME = 120
"""Characters: a name says of how many seeds and examples a point is, and PNG has no tooltips."""
_COLOURS = (
    *("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#222222"),
    *("#997700", "#99ddff", "#dddddd"),
)
"""Tol's bright scheme and three more, readable with colour vision deficiency: one for each stage and the rest."""


def save_stages_chart(record: ProfileRecord, folder: Path) -> list[Path]:
    """Draw a bar per model, split into its stages; returns the files, none if no latency was measured."""
    models = [model for model in record.models if model.latency]
    if not models:
        return []
    with chart_style():
        figure = new_figure(_WIDTH, 116 + 43 * len(models))
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        names = list(dict.fromkeys(stage for model in models for stage in _ms(model)))
        ends = [0.0] * len(models)
        for number, name in enumerate(names):
            widths = [_ms(model).get(name, 0.0) for model in models]
            shade = _COLOURS[number % len(_COLOURS)]
            bars = axes.barh(range(len(models)), widths, left=ends, label=name, color=shade)
            for model, bar, width in zip(models, bars, widths, strict=True):
                add_tooltip(bar, f"{model.name}, {name}: {width:.3g} ms")
            ends = [end + width for end, width in zip(ends, widths, strict=True)]
        axes.set_yticks(range(len(models)), [visible(model.name) for model in models])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.02 * max(ends)), xlabel="milliseconds of one example, by stage")
        axes.grid(False)
        figure.legend(fontsize="small", loc="outside lower center", ncols=5)
        return save_figure(figure, folder, "stages", "Milliseconds of one example by stage")


def save_front_chart(record: ProfileRecord, runs: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Draw main metrics of runs over the latency of their models, with the Pareto front.

    Runs that compare share a plot: task, data, split and protocol, as in a leaderboard's column. Runs that differ in
    their seed alone are one point, their mean. Labels give the number of seeds, and tell where a model was measured
    without its detector and how much of the split a limited run answered. What `left_out` names is not drawn; returns
    no files where nothing is left.
    """
    plots = _points(record, _newest_drawn(record, runs))
    if not plots:
        return []
    with chart_style():
        figure = new_figure(_WIDTH * len(plots), 288)
        figure.set_layout_engine("constrained")
        for number, (title, (metric, points)) in enumerate(plots.items(), start=1):
            axes = figure.add_subplot(1, len(plots), number)
            axes.set_title(title, fontsize="medium")
            label_axes(axes, "milliseconds of one example", metric)
            draw_front(axes, points, _LONGEST_NAME)
        return save_figure(figure, folder, "front", "Values over milliseconds of one example")


def left_out(record: ProfileRecord, runs: Sequence[RunRecord]) -> list[str]:
    """The runs that `save_front_chart` does not draw, one sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    drawn = {id(run.record) for run in _newest_drawn(record, runs)}
    for run in runs:
        if why := _why_not(record, run) or ("" if id(run) in drawn else "superseded"):
            by_reason.setdefault(why, []).append(f"{_model(run)} on {run.task.name}")
    return [f"left out of the chart, {why}: {first_five(_counted(names))}" for why, names in by_reason.items()]


def _newest_drawn(record: ProfileRecord, runs: Sequence[RunRecord]) -> list[FoundRun]:
    """The runs that have a point, the newest of each fingerprint."""
    return newest([FoundRun(Path(), run) for run in runs if not _why_not(record, run)])


def _counted(names: Sequence[str]) -> list[str]:
    """Each name once, with its count."""
    return [name if number == 1 else f"{number} runs of {name}" for name, number in Counter(names).items()]


def _ms(model: ModelProfile) -> dict[str, float]:
    """Milliseconds by stage that add up to the median of the whole; stages of the pipeline and the rest come last."""
    if model.latency is None:
        return {}
    parts = model.latency.parts
    order = sorted(parts, key=lambda name: (name == REST) + (name in (*PIPELINE, REST)))
    return {name: max(parts[name], 0.0) for name in order}


def _why_not(record: ProfileRecord, run: RunRecord) -> str:
    """Why a run has no point in the chart; empty if it has one."""
    if record.spec.stages:
        return "since only some stages were measured"
    if run.status != "done":
        return "not done"
    if (result := run.result(run.task.main_metric)) is None:
        return "without a value of their task's main metric"
    if not isfinite(result.value):
        return "since their value is not a number"
    if _model(run) not in {model.name for model in record.models if model.latency}:
        return "of models whose latency was not measured"
    measured = record.spec.task
    if run.task.name != measured and (_inputs(run.task.name) is None or _inputs(run.task.name) != _inputs(measured)):
        return f"since {measured} was measured, which has other inputs (profile with --task {run.task.name})"
    return ""


def _inputs(task: str) -> tuple[str, int] | None:
    """What latency depends on: the output and the images per example; None for an unknown task."""
    if task not in catalog.task_folders():
        return None
    card = catalog.task_card(task)
    return card.output, card.images_per_example


def _model(run: RunRecord) -> str:
    return f"{run.model.name}-{run.model.size}"


def _points(record: ProfileRecord, runs: Sequence[FoundRun]) -> dict[str, tuple[str, list[Point]]]:
    """The plots by title: the main metric, and each system with its milliseconds and its value."""
    latencies = {model.name: model.latency for model in record.models if model.latency}
    systems = placed([(run, "") for run in runs])
    metrics = {system.column: system.runs[0].record.task.main_metric for system in systems}
    plots: dict[str, tuple[str, list[Point]]] = {}
    for column, title in _titles(metrics).items():
        measured = [
            (f"{system.label}{_besides(record, system.runs)}", latencies[_model(system.runs[0].record)].model.p50, mean)
            for system in systems
            if system.column == column and (mean := aggregate(system.runs, metrics[column], ""))
        ]
        front = pareto([(ms, worth(mean.value, mean.higher_is_better)) for _, ms, mean in measured])
        points = [
            Point(label, ms, mean.value, None, (ms, worth(mean.value, mean.higher_is_better)) in front)
            for label, ms, mean in measured
        ]
        if points:
            plots[title] = (metrics[column], points)
    return plots


def _titles(metrics: Mapping[Column, str]) -> dict[Column, str]:
    """Title of each column; with version and data only where titles would be equal."""
    plain = {
        column: f"{column.title}{'' if column.data == 'real data' else f' ({column.data})'}: {metric}\n"
        f"{column.protocol}"
        for column, metric in metrics.items()
    }
    titles = list(plain.values())
    return {column: f"{title} {column.origin}" if titles.count(title) > 1 else title for column, title in plain.items()}


def _besides(record: ProfileRecord, system: Sequence[FoundRun]) -> str:
    """Remarks behind the name of a point."""
    run = system[0].record
    visual = next(model.visual for model in record.models if model.name == _model(run))
    notes = ["without detector"] if visual == "regions" and not record.spec.detector else []
    if len(system) > 1:
        notes.append(f"{len(system)} seeds")
    if run.task.n_scored != run.task.n_total:
        notes.append(f"{run.task.n_scored:,} of {run.task.n_total:,}")
    return f" ({', '.join(notes)})" if notes else ""
