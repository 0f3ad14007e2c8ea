"""Charts of values: reliability, lines, bars, Pareto fronts, and an interval in a table's cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import TYPE_CHECKING

from markupsafe import Markup

from vlbench.metrics.calibration import Calibration
from vlbench.report.drawing import UNITS_PER_INCH, add_tooltip, chart_style, color, new_figure, svg_content
from vlbench.report.html.chart_models import Chart, Series, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 480, 300
"""Of a chart, in SVG units."""
_FRAME = (58 / WIDTH, 48 / HEIGHT, 408 / WIDTH, 240 / HEIGHT)
"""The axes within a chart: left, bottom, width and height."""
_STRIP = (104, 16)
_DRAWN = 240
"""Points of a line beyond which a screen shows no more."""
_WITH_TOOLTIPS = 30
"""Points of a line up to which each one has a dot and a tooltip."""
_STYLES: tuple[Style, ...] = ("solid", "dashed", "dotted")
_SERIES = 4
_LONGEST = 28
"""Characters of a name that fit into a chart of a page."""
_LOGARITHMIC = 20
"""Ratio of the largest to the smallest cost from which costs stand on a logarithmic axis."""
_RIGHT_HALF = 0.6
"""The place in the axes from which names stand to the left of their dots."""
_DOT = 50
"""The area of a dot, in square points."""


@dataclass(frozen=True)
class Point:
    """A system: its cost, its value, half its interval, and whether no other system is better in both."""

    name: str
    cost: float
    value: float
    reach: float | None
    front: bool


def reliability_chart(calibration: Calibration) -> Chart:
    """Accuracy over confidence, bin by bin, next to the diagonal where both are equal."""
    bins = calibration.bins
    most = max(each.n for each in bins)
    with chart_style():
        figure, axes = _new_chart("confidence", "accuracy")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        for each in bins:
            (bar,) = axes.bar(
                each.low, each.n / most / 4, each.high - each.low - 0.002, align="edge", color=color("edge"), alpha=0.35
            )
            add_tooltip(bar, f"{each.n:,} answers of confidence {each.low:.2f} to {each.high:.2f}")
        axes.plot([0, 1], [0, 1], color=color("edge"), linestyle="dashed")
        axes.plot([each.confidence for each in bins], [each.accuracy for each in bins], color=color("s1"))
        for each in bins:
            text = f"{each.n:,} answers: confidence {each.confidence:.3f}, accuracy {each.accuracy:.3f}"
            _draw_dot(axes, each.confidence, each.accuracy, text, "s1")
        drawing = Markup(svg_content(figure))
    error = f"expected calibration error {calibration.ece:.4f} over {calibration.n:,} answers"
    return Chart("Reliability", f"Accuracy of answers by confidence; {error}. Bars: number of answers.", drawing)


def line_chart(title: str, summary: str, x_label: str, y_label: str, series: Mapping[str, Points]) -> Chart | None:
    """Lines over a common x, each by its name; None where there is no finite point."""
    finite = {name: [(x, y) for x, y in points if isfinite(y)] for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return None
    legend = [
        Series(name, f"s{number % _SERIES + 1}", _STYLES[number // _SERIES % len(_STYLES)])
        for number, name in enumerate(finite)
    ]
    with chart_style():
        figure, axes = _new_chart(x_label, y_label)
        axes.margins(x=0, y=0.06)
        for line, points in zip(legend, finite.values(), strict=True):
            shown = thinned(points)
            axes.plot([x for x, _ in shown], [y for _, y in shown], color=color(line.color), linestyle=line.style)
            for x, y in points if len(points) <= _WITH_TOOLTIPS else ():
                _draw_dot(axes, x, y, f"{line.name} {x_label} {x:g}: {y:.4g}".strip(), line.color)
        drawing = Markup(svg_content(figure))
    return Chart(title, summary, drawing, tuple(legend) if len(legend) > 1 else ())


def bar_chart(title: str, summary: str, x_label: str, y_label: str, counts: Mapping[str, int]) -> Chart:
    """Counts by name, in the order given."""
    with chart_style():
        figure, axes = _new_chart(x_label, y_label)
        axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(0, max(*counts.values(), 1)))
        for place, (name, count) in enumerate(counts.items()):
            (bar,) = axes.bar(place, count, 0.9, color=color("s1"))
            add_tooltip(bar, f"{name}: {count:,}")
        axes.set_xticks(range(len(counts)), list(counts))
        drawing = Markup(svg_content(figure))
    return Chart(title, summary, drawing)


def pareto_chart(title: str, points: Sequence[Point], cost: str, metric: str, cheap_is_low: bool) -> Chart:
    """Values over costs, one finite point or more, and a line through those that no other system beats in both."""
    with chart_style():
        figure, axes = _new_chart(cost, metric)
        draw_front(axes, points)
        drawing = Markup(svg_content(figure))
    names = ", ".join(point.name for point in points if point.front) or "none"
    better = "left" if cheap_is_low else "right"
    summary = f"{metric} over {cost}, which is better towards the {better}; on the front: {names}."
    return Chart(title, summary, drawing)


def draw_front(axes: Axes, points: Sequence[Point], longest: int = _LONGEST) -> None:
    """Draw each system with its name and its interval, and a line through those on the front. longest: characters of a
    name; a longer one is cut, and its dot's tooltip has all of it.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    costs = [point.cost for point in points]
    if min(costs) > 0 and max(costs) / min(costs) > _LOGARITHMIC:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(min(costs) / 1.3, max(costs) * 1.3)
    else:
        axes.set_xlim(_with_margin(costs))
    axes.set_ylim(_with_margin([point.value + sign * (point.reach or 0.0) for point in points for sign in (-1, 1)]))
    front = sorted((point.cost, point.value) for point in points if point.front)
    axes.plot([cost for cost, _ in front], [value for _, value in front], color=color("s1"))
    for point in points:
        shade = "s1" if point.front else "s2"
        if point.reach is not None:
            axes.vlines(
                point.cost, point.value - point.reach, point.value + point.reach, color=color(shade), linewidth=2
            )
        _draw_dot(axes, point.cost, point.value, point.name, shade)
        place, _ = axes.transAxes.inverted().transform(axes.transData.transform((point.cost, point.value)))
        name = point.name if len(point.name) <= longest else f"{point.name[: longest - 1]}…"
        side, align = (7, "left") if place < _RIGHT_HALF else (-7, "right")
        axes.annotate(name, (point.cost, point.value), xytext=(side, 6), textcoords="offset points", ha=align)


def interval_strip(value: float, low: float | None, high: float | None, baseline: float | None) -> Markup:
    """A dot at a value with its interval and the image-blind baseline, on a scale; all in [0, 100]."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Affine2D

    with chart_style():
        figure = new_figure(*_STRIP)
        figure.set_facecolor("none")
        lines = [Line2D([2, 102], [8, 8], linewidth=1, color=color("edge"), alpha=0.5)]
        if baseline is not None:
            lines.append(Line2D([baseline + 2] * 2, [1, 15], color=color("s2")))
        if low is not None and high is not None:
            lines.append(Line2D([low + 2, high + 2], [8, 8], linewidth=8, color=color("s1"), alpha=0.45))
        lines.append(Line2D([value + 2], [8], marker="o", markersize=5, markeredgewidth=0, color=color("s1")))
        for line in lines:
            line.set_transform(Affine2D().scale(1 / UNITS_PER_INCH) + figure.dpi_scale_trans)
            line.set_solid_capstyle("butt")
            figure.add_artist(line)
        return Markup(svg_content(figure))


def thinned(points: Points) -> Points:
    """Means of neighbours where there are more points than a line shows."""
    if len(points) <= _DRAWN:
        return points
    step = ceil(len(points) / _DRAWN)
    groups = [points[start : start + step] for start in range(0, len(points), step)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def label_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Name both axes and give them a few round ticks, written as plain numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel=x_label, ylabel=y_label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter("{x:g}")


def _new_chart(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = new_figure(WIDTH, HEIGHT)
    figure.set_facecolor("none")
    axes = figure.add_axes(_FRAME)
    label_axes(axes, x_label, y_label)
    return figure, axes


def _draw_dot(axes: Axes, x: float, y: float, text: str, shade: str) -> None:
    add_tooltip(axes.scatter([x], [y], _DOT, color=color(shade), linewidths=0, zorder=3), text)


def _with_margin(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values with a margin, and of some width where all values are equal."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or max(abs(high) * 0.06, 0.5)
    return low - margin, high + margin
