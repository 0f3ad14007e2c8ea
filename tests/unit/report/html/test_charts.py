from __future__ import annotations

import pytest

from vlbench.metrics.calibration import calibration
from vlbench.report.html.chart_models import BOTTOM, LEFT, RIGHT, TOP
from vlbench.report.html.charts import Point, Scale, bar_chart, line_chart, pareto_chart, reliability_chart


def test_a_scale_meets_its_ends_and_its_ticks_are_round() -> None:
    scale = Scale(0, 87, LEFT, RIGHT)
    assert (scale(0), scale(87)) == (LEFT, RIGHT)
    assert [tick.label for tick in scale.ticks] == ["0", "20", "40", "60", "80"]
    decades = Scale(1, 1000, 0, 300, log=True)
    assert (decades(1), decades(10), decades(1000)) == (0, 100, 300)
    assert [tick.label for tick in decades.ticks] == ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1000"]
    assert Scale(3, 3, 0, 10)(3) == 0, "one value alone is no division by zero"


def test_lines_keep_what_is_finite_and_long_ones_are_thinned() -> None:
    chart = line_chart("loss", "s", "step", "loss", {"run": [(step, 1000 - step) for step in range(1000)]})
    assert chart is not None
    points = [tuple(map(float, point.split(","))) for point in chart.lines[0].points.split()]
    assert len(points) <= 240
    assert [y for _, y in points] == sorted(y for _, y in points)
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in points)
    assert chart.legend == (), "one line needs no legend"
    assert line_chart("loss", "s", "step", "loss", {"run": [(1, float("nan"))]}) is None
    both = line_chart("loss", "s", "step", "loss", {"a": [(1, 1.0)], "b": [(1, 2.0), (2, float("inf"))]})
    assert both is not None
    assert both.legend == ((1, "a"), (2, "b"))


def test_bars_are_as_high_as_their_counts() -> None:
    chart = bar_chart("ranks", "s", "rank", "queries", {"1": 30, "2": 10, "> 2": 0})
    assert [bar.height / (BOTTOM - TOP) for bar in chart.bars] == pytest.approx([1, 1 / 3, 0], abs=0.01)
    assert [bar.label for bar in chart.bars] == ["1: 30", "2: 10", "> 2: 0"]


def test_a_sure_and_right_answer_lies_in_the_corner() -> None:
    chart = reliability_chart(calibration([1.0, 0.0], [1.0, 0.0]))
    assert {(dot.x, dot.y) for dot in chart.dots} == {(RIGHT, TOP), (LEFT, BOTTOM)}


def test_the_front_is_drawn_through_its_points_only() -> None:
    points = [Point("a", 10, 50, 2, True), Point("b", 20, 60, None, True), Point("c", 30, 55, 1, False)]
    chart = pareto_chart("t", [*points, Point("d", float("nan"), 1, None, False)], "latency (ms)", "accuracy", True)
    assert chart is not None
    dots = {dot.label: dot for dot in chart.dots}
    assert set(dots) == {"a", "b", "c"}
    assert chart.lines[0].points == " ".join(f"{dots[name].x},{dots[name].y}" for name in "ab")
    assert dots["b"].y < dots["c"].y < dots["a"].y, "up is better"
    low, high = dots["a"].low, dots["a"].high
    assert low is not None
    assert high is not None
    assert (low + high) / 2 == pytest.approx(dots["a"].y, abs=0.1)
    assert pareto_chart("t", [], "c", "m", True) is None
