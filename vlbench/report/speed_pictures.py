"""A profile as pictures: where the time goes, and accuracy against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlbench import catalog
from vlbench.core.errors import first_five
from vlbench.core.profile import PIPELINE, ModelProfile, ProfileRecord
from vlbench.core.record import RunRecord
from vlbench.report.pareto import pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg")
_COLOURS = (
    *("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#222222"),
    *("#997700", "#99ddff"),
)
"""Tol's bright scheme and two more, told apart by those who do not see all colours; as many as there are stages."""


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
    axes.set_xlabel("milliseconds of one example, medians")
    figure.legend(fontsize="small", loc="outside lower center", ncols=5)
    return _saved(figure, folder, "stages")


def front_picture(record: ProfileRecord, runs: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Main metrics of runs against the latency of their models, a field per task, with those no other model beats.

    Labels say where a model was measured without its detector, and how much of the split a limited run answered. What
    `left_out` names is not drawn; returns no files where nothing is left.
    """
    drawn = [run for run in runs if not _why_not(record, run)]
    points = {task: _points(record, drawn, task) for task in dict.fromkeys(map(_label, drawn))}
    if not points:
        return []
    figure, fields = _fields(len(points))
    for axes, (task, found) in zip(fields, points.items(), strict=True):
        axes.scatter([ms for _, ms, _ in found], [value for _, _, value in found], color=_COLOURS[0])
        for name, ms, value in found:
            axes.annotate(name, (ms, value), xytext=(4, 4), textcoords="offset points", fontsize="small")
        front = pareto([(ms, value) for _, ms, value in found])
        axes.plot([ms for ms, _ in front], [value for _, value in front], drawstyle="steps-post", color=_COLOURS[4])
        axes.set_xscale("log")
        axes.set_title(task, fontsize="medium")
        axes.set_xlabel("milliseconds of one example")
    return _saved(figure, folder, "front")


def left_out(record: ProfileRecord, runs: Sequence[RunRecord]) -> list[str]:
    """Which runs `front_picture` does not draw, a sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    for run in runs:
        if why := _why_not(record, run):
            by_reason.setdefault(why, []).append(f"{_model(run)} on {run.task.name}")
    return [f"left out of the picture, {why}: {first_five(names)}" for why, names in by_reason.items()]


def _ms(one: ModelProfile) -> dict[str, float]:
    """Milliseconds by stage, those of the pipeline last."""
    stages = one.latency.stages if one.latency else {}
    order = sorted(stages, key=lambda name: name in PIPELINE)
    return {name: stages[name].p50 for name in order}


def _why_not(record: ProfileRecord, run: RunRecord) -> str:
    """Why a run has no point in the picture; empty where it has one."""
    if record.spec.stages:
        return "since some stages alone were measured"
    if run.status != "done" or run.result(run.task.main_metric) is None:
        return "not done"
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


def _label(run: RunRecord) -> str:
    world = " (built-in world)" if run.task.source == "world" else ""
    return f"{run.task.name} {run.task.split}{world}: {run.task.main_metric}"


def _points(record: ProfileRecord, runs: Sequence[RunRecord], task: str) -> list[tuple[str, float, float]]:
    """Model, milliseconds and main metric of the runs of one task, the last run of one label counting."""
    models = {one.name: one for one in record.models if one.latency}
    found: dict[str, tuple[str, float, float]] = {}
    for run in runs:
        one, result = models[_model(run)], run.result(run.task.main_metric)
        if _label(run) == task and one.latency and result:
            name = f"{one.name}{_besides(record, one, run)}"
            found[name] = (name, one.latency.model.p50, result.value)
    return list(found.values())


def _besides(record: ProfileRecord, one: ModelProfile, run: RunRecord) -> str:
    """What a point's reader must know besides the model."""
    notes = ["without detector"] if one.visual == "regions" and not record.spec.detector else []
    if run.task.limit is not None:
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
