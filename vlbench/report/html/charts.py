"""From figures to charts: scales, ticks and coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from vlbench.metrics.calibration import Calibration
from vlbench.report.html.chart_models import BOTTOM, LEFT, RIGHT, TOP, Bar, Chart, Dot, Line, Tick

Points = Sequence[tuple[float, float]]
_DRAWN = 240
"""Points of a line beyond which a screen shows no more."""


@dataclass(frozen=True)
class Scale:
    """Values from low to high onto places from start to end; logarithmic where values differ by orders."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, of = (log10(one) if self.log else one for one in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (of - low) / ((high - low) or 1.0), 1)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        values = _decades(self.low, self.high) if self.log else _round_values(self.low, self.high)
        return tuple(Tick(self(value), f"{value:g}") for value in values)


@dataclass(frozen=True)
class Point:
    """A system: what it costs, what it scores, half its interval, and whether no other is better in both."""

    name: str
    cost: float
    value: float
    reach: float | None
    front: bool


def reliability_chart(found: Calibration) -> Chart:
    """Accuracy over confidence, bin by bin, beside the diagonal where both are equal."""
    x, y = Scale(0, 1, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)
    dots = [
        Dot(x(one.confidence), y(one.accuracy),
            f"{one.n:,} answers: confidence {one.confidence:.3f}, {one.accuracy:.3f} right")
        for one in found.bins
    ]  # fmt: skip
    line = Line("", " ".join(f"{dot.x},{dot.y}" for dot in dots), 1)
    biggest = max(one.n for one in found.bins)
    bars = [
        Bar(x(one.low), BOTTOM - 60 * one.n / biggest, x(one.high) - x(one.low) - 1, 60 * one.n / biggest,
            f"{one.n:,} answers of confidence {one.low:.2f} to {one.high:.2f}", 0)
        for one in found.bins
    ]  # fmt: skip
    return Chart(
        "Reliability",
        f"How often answers of like confidence are right; expected calibration error {found.ece:.4f} "
        f"over {found.n:,} answers. Bars: how many answers.",
        "confidence", "share right", x.ticks, y.ticks,
        (Line("", f"{LEFT},{BOTTOM} {RIGHT},{TOP}", 0), line), tuple(bars), tuple(dots),
    )  # fmt: skip


def line_chart(title: str, summary: str, x_label: str, y_label: str, series: Mapping[str, Points]) -> Chart | None:
    """Lines over a common x, each by its name; None where there is no finite point."""
    finite = {name: [(x, y) for x, y in points if isfinite(y)] for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return None
    xs, ys = ([point[axis] for points in finite.values() for point in points] for axis in (0, 1))
    x, y = Scale(min(xs), max(xs), LEFT, RIGHT), Scale(*_roomy(min(ys), max(ys)), BOTTOM, TOP)
    lines = [
        Line(name, " ".join(f"{x(at)},{y(value)}" for at, value in _thinned(points)), number)
        for number, (name, points) in enumerate(finite.items(), start=1)
    ]
    dots = [
        Dot(x(at), y(value), f"{name} {x_label} {at:g}: {value:.4g}".strip(), series=number)
        for number, (name, points) in enumerate(finite.items(), start=1)
        if len(points) <= 30
        for at, value in points
    ]
    return Chart(title, summary, x_label, y_label, x.ticks, y.ticks, tuple(lines), (), tuple(dots))


def bar_chart(title: str, summary: str, x_label: str, y_label: str, counts: Mapping[str, int]) -> Chart:
    """Counts by name, in the order given."""
    width = (RIGHT - LEFT) / len(counts)
    y = Scale(0, max(*counts.values(), 1), BOTTOM, TOP)
    bars = [
        Bar(round(LEFT + number * width + 2, 1), y(count), round(width - 4, 1), round(BOTTOM - y(count), 1),
            f"{name}: {count:,}")
        for number, (name, count) in enumerate(counts.items())
    ]  # fmt: skip
    names = tuple(Tick(round(LEFT + (number + 0.5) * width, 1), name) for number, name in enumerate(counts))
    return Chart(title, summary, x_label, y_label, names, y.ticks, (), tuple(bars))


def pareto_chart(title: str, points: Sequence[Point], cost: str, metric: str, cheap_is_low: bool) -> Chart | None:
    """Figures over what they cost, and the line of those that no other beats in both; None for no point."""
    points = [one for one in points if isfinite(one.cost) and isfinite(one.value)]
    if not points:
        return None
    costs = [one.cost for one in points]
    log = min(costs) > 0 and max(costs) / min(costs) > 20
    reaches = [one.value + sign * (one.reach or 0.0) for one in points for sign in (-1, 1)]
    low, high = (min(costs) / 1.3, max(costs) * 1.3) if log else _roomy(min(costs), max(costs))
    x, y = Scale(low, high, LEFT, RIGHT, log), Scale(*_roomy(min(reaches), max(reaches)), BOTTOM, TOP)
    dots = [
        Dot(
            x(one.cost), y(one.value), one.name,
            None if one.reach is None else y(one.value - one.reach),
            None if one.reach is None else y(one.value + one.reach),
            named=True, series=1 if one.front else 2,
        )
        for one in points
    ]  # fmt: skip
    front = sorted((dot.x, dot.y) for dot in dots if dot.series == 1)
    names = ", ".join(one.name for one in points if one.front) or "none"
    better = "left" if cheap_is_low else "right"
    return Chart(
        title, f"{metric} over {cost}, which is better towards the {better}; on the front: {names}.",
        cost, metric, x.ticks, y.ticks, (Line("", " ".join(f"{a},{b}" for a, b in front), 1),), (), tuple(dots),
    )  # fmt: skip


def _roomy(low: float, high: float) -> tuple[float, float]:
    """A little room at both ends, and some at all where all values are one."""
    room = 0.06 * (high - low) or max(abs(high) * 0.06, 0.5)
    return low - room, high + room


def _round_values(low: float, high: float, about: int = 5) -> list[float]:
    """Values of few digits between two ends."""
    raw = ((high - low) or 1.0) / about
    unit = 10.0 ** floor(log10(raw))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times >= raw)
    return [round(number * step, 12) for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten between two ends."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    return [times * 10.0**power for power in powers for times in (1, 2, 5) if low <= times * 10.0**power <= high]


def _thinned(points: Points) -> Points:
    """Means of neighbours where there are more points than a line shows."""
    if len(points) <= _DRAWN:
        return points
    step = ceil(len(points) / _DRAWN)
    groups = [points[start : start + step] for start in range(0, len(points), step)]
    return [(sum(x for x, _ in of) / len(of), sum(y for _, y in of) / len(of)) for of in groups]
