"""A profile as pictures: where the time goes, and accuracy against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from vlbench import catalog
from vlbench.core.errors import first_five
from vlbench.core.profile import PIPELINE, REST, ModelProfile, ProfileRecord
from vlbench.core.record import RunRecord
from vlbench.metrics.direction import MetricValue, worth
from vlbench.records.collect import FoundRun
from vlbench.report.tables.aggregates import figure
from vlbench.report.tables.pareto import pareto
from vlbench.report.tables.protocol import Column, newest
from vlbench.report.tables.system_names import placed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg")
_COLOURS = (
    *("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#222222"),
    *("#997700", "#99ddff", "#dddddd"),
)
"""Tol's bright scheme and three more, told apart by those who do not see all colours; as many as there are stages, and
the rest."""


def stages_picture(record: ProfileRecord, folder: Path) -> list[Path]:
    """A bar per model, cut into its stages; returns the files, none where no latency was measured."""
    models = [one for one in record.models if one.latency]
    if not models:
        return []
    figure, (axes,) = _fields(1, height=1.6 + 0.6 * len(models))
    names = list(dict.fromkeys(stage for one in models for stage in _ms(one)))
    ends = [0.0] * len(models)
    for number, name in enumerate(names):
        widths = [_ms(one).get(name, 0.0) for one in models]
        axes.barh(range(len(models)), widths, left=ends, label=name, color=_COLOURS[number % len(_COLOURS)])
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    axes.set_yticks(range(len(models)), [one.name for one in models])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of one example, by stage")
    figure.legend(fontsize="small", loc="outside lower center", ncols=5)
    return _saved(figure, folder, "stages")


def front_picture(record: ProfileRecord, runs: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Main metrics of runs against the latency of their models, and those that no other model beats.

    What compares shares a field: task, data, split and protocol, as in a leaderboard's column. Runs that differ in
    their seed alone are one point, their mean. Labels say of how many seeds, where a model was measured without its
    detector, and how much of the split a limited run answered. What `left_out` names is not drawn; returns no files
    where nothing is left.
    """
    points = _points(record, newest([FoundRun(Path(), run) for run in runs if not _why_not(record, run)]))
    if not points:
        return []
    figure, fields = _fields(len(points))
    for axes, (title, found) in zip(fields, points.items(), strict=True):
        axes.scatter([ms for _, ms, _ in found], [measured.value for _, _, measured in found], color=_COLOURS[0])
        for name, ms, measured in found:
            axes.annotate(name, (ms, measured.value), xytext=(4, 4), textcoords="offset points", fontsize="small")
        front = _front(found)
        axes.plot([ms for ms, _ in front], [value for _, value in front], drawstyle="steps-post", color=_COLOURS[4])
        axes.set_xscale("log")
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("milliseconds of one example")
    return _saved(figure, folder, "front")


def _front(points: Sequence[tuple[str, float, MetricValue]]) -> list[tuple[float, float]]:
    """The (milliseconds, value) pairs that no other point beats in both."""
    better = points[0][2].higher_is_better  # the points of a field are of one metric
    worths = pareto([(ms, worth(measured.value, better)) for _, ms, measured in points])
    return [(ms, worth(value, better)) for ms, value in worths]  # worth undoes itself


def left_out(record: ProfileRecord, runs: Sequence[RunRecord]) -> list[str]:
    """Which runs `front_picture` does not draw, a sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    drawn = {id(run.record) for run in newest([FoundRun(Path(), run) for run in runs if not _why_not(record, run)])}
    for run in runs:
        if why := _why_not(record, run) or ("" if id(run) in drawn else "of which there is a newer one"):
            by_reason.setdefault(why, []).append(f"{_model(run)} on {run.task.name}")
    return [f"left out of the picture, {why}: {first_five(_counted(names))}" for why, names in by_reason.items()]


def _counted(names: Sequence[str]) -> list[str]:
    """Each once, with how often it is there."""
    return [name if number == 1 else f"{number} runs of {name}" for name, number in Counter(names).items()]


def _ms(one: ModelProfile) -> dict[str, float]:
    """Milliseconds by stage that add up to the median whole, those of the pipeline and the rest last."""
    if one.latency is None:
        return {}
    parts = one.latency.parts
    order = sorted(parts, key=lambda name: (name == REST) + (name in (*PIPELINE, REST)))
    return {name: max(parts[name], 0.0) for name in order}


def _why_not(record: ProfileRecord, run: RunRecord) -> str:
    """Why a run has no point in the picture; empty where it has one."""
    if record.spec.stages:
        return "since some stages alone were measured"
    if run.status != "done":
        return "not done"
    if (result := run.result(run.task.main_metric)) is None:
        return "without a figure of their task's main metric"
    if not isfinite(result.value):
        return "since their figure is not a number"
    if _model(run) not in {one.name for one in record.models if one.latency}:
        return "of models whose latency was not measured"
    measured = record.spec.task
    if run.task.name != measured and (_asked(run.task.name) is None or _asked(run.task.name) != _asked(measured)):
        return f"since {measured} was measured, which asks otherwise (profile with --task {run.task.name})"
    return ""


def _asked(task: str) -> tuple[str, int] | None:
    """What latency depends on: the kind of answer, and pictures of an example; None of a task that is not known."""
    if task not in catalog.task_folders():
        return None
    card = catalog.task_card(task)
    return card.output, card.images_per_example


def _model(run: RunRecord) -> str:
    return f"{run.model.name}-{run.model.size}"


def _points(record: ProfileRecord, runs: Sequence[FoundRun]) -> dict[str, list[tuple[str, float, MetricValue]]]:
    """Systems by what they share with those they compare to, its title: label, milliseconds and main metric."""
    latencies = {one.name: one.latency for one in record.models if one.latency}
    systems = placed([(run, "") for run in runs])
    titles = _titles({one.column: one.runs[0].record.task.main_metric for one in systems})
    found: dict[str, list[tuple[str, float, MetricValue]]] = {}
    for one in systems:
        run = one.runs[0].record
        if mean := figure(one.runs, run.task.main_metric, ""):
            label = f"{one.label}{_besides(record, one.runs)}"
            measured = MetricValue(mean.value, mean.higher_is_better)
            found.setdefault(titles[one.column], []).append((label, latencies[_model(run)].model.p50, measured))
    return found


def _titles(metrics: Mapping[Column, str]) -> dict[Column, str]:
    """In words what is measured in each column; its version and data only where nothing else tells two apart."""
    plain = {
        of: f"{of.title}{'' if of.data == 'real data' else f' ({of.data})'}: {metric}\n{of.protocol}"
        for of, metric in metrics.items()
    }
    return {
        of: f"{title} (version {of.version}, data {of.manifest})" if [*plain.values()].count(title) > 1 else title
        for of, title in plain.items()
    }


def _besides(record: ProfileRecord, system: Sequence[FoundRun]) -> str:
    """What a point's reader must know besides the model."""
    run = system[0].record
    visual = next(one.visual for one in record.models if one.name == _model(run))
    notes = ["without detector"] if visual == "regions" and not record.spec.detector else []
    if len(system) > 1:
        notes.append(f"{len(system)} seeds")
    if run.task.n_scored != run.task.n_total:
        notes.append(f"{run.task.n_scored:,} of {run.task.n_total:,}")
    return f" ({', '.join(notes)})" if notes else ""


def _fields(count: int, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    """Fields side by side, drawn without a display and without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7.0, 4.5 * count), height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, count, number + 1) for number in range(count)]


def _saved(figure: Figure, folder: Path, name: str) -> list[Path]:
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{form}" for form in _FORMATS]
    with rc_context({"svg.hashsalt": name}):  # without it and without a date no two files would be the same
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths
