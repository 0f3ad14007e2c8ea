from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from vlbench.core.errors import VlbenchError
from vlbench.report.html.fronts import fronts_svg
from vlbench.report.tables.leaderboard import Board

MakeBoard = Callable[..., Board]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def runs(make_run: Callable[..., Path]) -> list[Path]:
    return [make_run("a", [1.0, 0.0, 1.0], model="<b>&amp;"), make_run("b", [1.0] * 3, model="vilt")]


def test_a_field_for_each_task_with_every_system_in_it(made_board: MakeBoard, runs: list[Path]) -> None:
    drawn = ElementTree.fromstring(fronts_svg(made_board(runs, "parameters")))
    assert (drawn.get("width"), drawn.get("height")) == ("480", "320")
    names = [text.text for text in drawn.iter(f"{SVG}text") if (text.text or "").endswith("-tiny")]
    assert sorted(filter(None, names)) == ["<b>&amp;-tiny", "vilt-tiny"]
    assert sorted(title.text or "" for title in drawn.iter(f"{SVG}title")) == ["<b>&amp;-tiny", "vilt-tiny"]


def test_without_a_cost_there_is_nothing_to_draw(made_board: MakeBoard, runs: list[Path]) -> None:
    with pytest.raises(VlbenchError, match="give --pareto latency"):
        fronts_svg(made_board(runs, ""))


def test_a_stale_picture_is_told(runs: list[Path], vlbench: Any, tmp_path: Path) -> None:
    asked = ["leaderboard", *runs, "--pareto", "parameters", "--picture", tmp_path / "front.svg"]
    assert vlbench(*asked).code == 0
    assert vlbench(*asked, "--check").code == 0
    (tmp_path / "front.svg").write_text("<svg/>")
    assert vlbench(*asked, "--check").code == 11
