"""The page of a leaderboard in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COUNT = "document.getElementById('count').textContent"


def test_a_leaderboard_sorts_and_narrows(
    browser: Any, two_runs: list[Path], vlbench: Any, hostile_run: Path, tmp_path: Path
) -> None:
    page = tmp_path / "board.html"
    done = vlbench(
        "leaderboard", *two_runs, hostile_run, "--columns", "main,parameters", "--pareto", "parameters",
        "--format", "html", "--output", page,
    )  # fmt: skip
    assert done.code == 0, done.err
    browser.open(page)
    headers = "[...document.querySelector('table.sortable').tHead.rows[0].cells]"
    column = (
        "[...document.querySelector('table.sortable').tBodies[0].rows].map((r) => Number(r.cells[1].dataset.value))"
    )
    for descending in (True, False):
        browser.run(f"{headers}[1].querySelector('button').click()")
        assert browser.run(f"{headers}[1].getAttribute('aria-sort')") == ("descending" if descending else "ascending")
        values = browser.run(column)
        assert values == sorted(values, reverse=descending)
    browser.press("/")
    for key in "nobody":
        browser.press(key)
    assert browser.run(COUNT).startswith("0 of ")
    assert browser.run("document.querySelectorAll('svg.chart').length") > 0
    assert browser.run("window.taken") is None
    assert browser.faults() == []
    assert browser.requests() == [page.resolve().as_uri()]
