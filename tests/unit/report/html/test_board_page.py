from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlbench.records.folder import read_run
from vlbench.report.html.board_page import board_page
from vlbench.report.tables.leaderboard import Board

MakeRun = Callable[..., Path]
MakeBoard = Callable[..., Board]


@pytest.fixture
def runs(make_run: MakeRun) -> list[Path]:
    """A good and costly system, and a bad and cheap one."""
    scores = np.random.default_rng(0).uniform(size=(2, 300))
    return [
        make_run(name, (scores[place] < share).astype(float).tolist(), model=name)
        for place, (name, share) in enumerate((("good", 0.8), ("bad", 0.4)))
    ]


def test_values_are_the_records_and_the_best_is_marked(made_board: MakeBoard, runs: list[Path]) -> None:
    text = board_page(made_board(runs))
    for run in runs:
        result = read_run(run).result("accuracy")
        assert result is not None
        assert f'data-value="{result.value}"' in text
        assert f"{result.value:.2f} ±" in text
    assert re.findall(r"<strong><bdi>([\d.]+)", text) == [f"{read_run(runs[0]).results[0].value:.2f}"]


def test_the_front_has_a_picture_where_it_is_asked_for(made_board: MakeBoard, runs: list[Path]) -> None:
    assert "<figure>" not in board_page(made_board(runs))
    text = board_page(made_board(runs, "parameters"))
    assert len(re.findall('<svg class="chart"', text)) == 1
    assert "on the front: good-tiny." in text, "of equal cost, the better alone"


def test_doubts_stand_beside_what_they_are_of(made_board: MakeBoard, make_run: MakeRun, vlbench: Any) -> None:
    run = make_run("a", [1.0, 0.0, 1.0], model="<b>&amp;\u202e")
    text = board_page(made_board([make_run("b", [1.0] * 3, status="interrupted"), run]))
    assert 'class="note">the run is interrupted, not done' in text
    assert "&lt;b&gt;&amp;amp;\\u202e-tiny" in text


def test_the_page_is_whole_alone_and_a_table_within_another_page(
    runs: list[Path], vlbench: Any, tmp_path: Path
) -> None:
    done = vlbench("leaderboard", *runs, "--format", "html")
    assert done.out.startswith("<!DOCTYPE html>")
    page = tmp_path / "page.md"
    page.write_text("<!-- vlbench:begin -->\n<!-- vlbench:end -->\n")
    assert vlbench("leaderboard", *runs, "--format", "html", "--inject", page).code == 0
    assert "<table>" in page.read_text()
    assert "<!DOCTYPE" not in page.read_text()
    whole = tmp_path / "index.html"
    assert vlbench("leaderboard", *runs, "--format", "html", "--output", whole).code == 0
    assert vlbench("leaderboard", *runs, "--format", "html", "--output", whole, "--check").code == 0
    whole.write_text(whole.read_text().replace("good", "best"))
    assert vlbench("leaderboard", *runs, "--format", "html", "--output", whole, "--check").code == 11
