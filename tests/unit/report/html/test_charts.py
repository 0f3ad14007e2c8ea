from __future__ import annotations

from xml.etree import ElementTree

import matplotlib
import pytest

from vlbench.metrics.calibration import calibration
from vlbench.report.drawing import add_tooltip, chart_style, new_figure, svg_content, svg_document
from vlbench.report.html.chart_models import Chart
from vlbench.report.html.charts import (
    Point,
    bar_chart,
    draw_front,
    interval_strip,
    label_axes,
    line_chart,
    pareto_chart,
    reliability_chart,
    thinned,
)

LEFT, RIGHT, TOP, BOTTOM = 58, 466, 12, 252
"""The axes within a chart, in SVG units."""


def shapes(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(f"<svg>{chart.drawing}</svg>")


def ticks(chart: Chart) -> list[str]:
    return [text.text or "" for text in shapes(chart).iter("text") if text.get("fill") == "var(--quiet)"]


def places(chart: Chart) -> dict[str, tuple[float, float]]:
    """Where each dot stands, by its tooltip."""
    found = {}
    for group in shapes(chart).iter("g"):
        path, title = group.find("path"), group.find("title")
        if path is not None and title is not None and (place := path.get("transform", "")).startswith("translate("):
            x, y = place.removeprefix("translate(").rstrip(")").split()
            found[title.text or ""] = (float(x), float(y))
    return found


def line(chart: Chart, color: str = "s1") -> list[tuple[float, float]]:
    """The corners of the line of that colour, which has no tooltip."""
    (path,) = [
        path
        for path in shapes(chart).findall("path")
        if path.get("stroke") == f"var(--{color})" and path.get("fill") == "none" and path.get("stroke-linecap")
    ]
    numbers = [float(word) for word in path.get("d", "").split() if word not in "ML"]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_ticks_are_few_and_round() -> None:
    chart = line_chart("t", "s", "step", "loss", {"run": [(0, 0.0), (87, 1.0)]})
    assert chart is not None
    assert ticks(chart)[:5] == ["0", "20", "40", "60", "80"]
    points = [Point("a", 1.3, 50, None, True), Point("b", 700, 60, None, True)]
    assert ticks(pareto_chart("t", points, "c", "m", True))[:9] == [
        "1",
        "2",
        "5",
        "10",
        "20",
        "50",
        "100",
        "200",
        "500",
    ]
    alone = line_chart("t", "s", "step", "loss", {"run": [(3, 1.0)]})
    assert alone is not None and places(alone), "one value alone is no division by zero"


def test_lines_keep_what_is_finite_and_long_ones_are_thinned() -> None:
    points = [(float(step), 1000.0 - step) for step in range(1000)]
    assert len(thinned(points)) <= 240
    chart = line_chart("loss", "s", "step", "loss", {"run": points})
    assert chart is not None
    drawn = line(chart)
    assert [y for _, y in drawn] == sorted(y for _, y in drawn)
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in drawn)
    assert chart.legend == (), "one line needs no legend"
    assert line_chart("loss", "s", "step", "loss", {"run": [(1, float("nan"))]}) is None
    both = line_chart("loss", "s", "step", "loss", {"a": [(1, 1.0)], "b": [(1, 2.0), (2, float("inf"))]})
    assert both is not None
    assert [(one.color, one.name) for one in both.legend] == [("s1", "a"), ("s2", "b")]


def test_bars_are_as_high_as_their_counts() -> None:
    chart = bar_chart("ranks", "s", "rank", "queries", {"1": 30, "2": 10, "> 2": 0})
    heights = {}
    for group in shapes(chart).iter("g"):
        title, path = group.find("title"), group.find("path")
        assert title is not None and path is not None
        ys = [float(word) for word in path.get("d", "").split() if word not in "MLz"][1::2]
        heights[title.text] = (max(ys) - min(ys)) / (BOTTOM - TOP)
    assert heights == {"1: 30": 1, "2: 10": pytest.approx(1 / 3, abs=0.01), "> 2: 0": 0}
    assert ticks(chart)[:3] == ["1", "2", "> 2"]


def test_a_sure_and_right_answer_lies_in_the_corner() -> None:
    chart = reliability_chart(calibration([1.0, 0.0], [1.0, 0.0]))
    assert set(places(chart).values()) == {(RIGHT, TOP), (LEFT, BOTTOM)}


def test_the_front_is_drawn_through_its_points_only() -> None:
    points = [Point("a", 10, 50, 2, True), Point("b", 20, 60, None, True), Point("c", 30, 55, 1, False)]
    chart = pareto_chart("t", points, "latency (ms)", "accuracy", True)
    dots = places(chart)
    assert set(dots) == {"a", "b", "c"}
    assert line(chart) == [dots["a"], dots["b"]]
    assert dots["b"][1] < dots["c"][1] < dots["a"][1], "up is better"
    with chart_style():
        axes = new_figure(100, 100).add_subplot()
        label_axes(axes, "c", "m")
        draw_front(axes, points)
    intervals = [
        [tuple(end) for end in lines.get_segments()[0]] for lines in axes.collections if hasattr(lines, "get_segments")
    ]
    assert intervals == [[(10, 48), (10, 52)], [(30, 54), (30, 56)]]


def test_a_strip_shows_value_interval_and_baseline() -> None:
    drawn = ElementTree.fromstring(f"<svg>{interval_strip(50, 40, 60, 25)}</svg>")
    lines = [path.get("d") for path in drawn if path.get("stroke") in ("var(--s1)", "var(--s2)")]
    assert lines[:2] == ["M 27 15 L 27 1", "M 42 8 L 62 8"]
    assert any(path.get("transform") == "translate(52 8)" for path in drawn)
    assert len(ElementTree.fromstring(f"<svg>{interval_strip(50, None, None, None)}</svg>")) < len(drawn)


def test_a_drawing_follows_the_theme_and_no_text_in_it_is_markup() -> None:
    def draw() -> str:
        with chart_style():
            figure = new_figure(100, 50)
            axes = figure.add_subplot()
            axes.set_title("$a_1$ <b>&amp;\x00\u202e 中")
            add_tooltip(axes.scatter([1], [1]), "<script>\x1b")
            return svg_document(figure, "<t>")

    content = draw()
    texts = [text for text in ElementTree.fromstring(content).itertext() if text.strip()]
    assert "$a_1$ <b>&amp;\\x00\\u202e 中" in texts and "<script>\\x1b" in texts
    assert "var(--quiet)" in content and "prefers-color-scheme: dark" in content
    body = content[content.index("</style>") :]
    assert " style=" not in body and " id=" not in body and "href" not in body and "url(" not in body
    assert content == draw(), "the same values give the same bytes"


def test_settings_of_the_user_change_no_drawing() -> None:
    chart = bar_chart("t", "s", "x", "y", {"a": 1})
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert bar_chart("t", "s", "x", "y", {"a": 1}) == chart
        assert matplotlib.rcParams["font.size"] == 30, "and they stay as they are"
    with chart_style():
        assert svg_content(new_figure(10, 10))
