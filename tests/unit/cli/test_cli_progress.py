"""Progress on stderr: a line when it is time for one, bars on a terminal, nothing when quiet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from vlbench.cli import progress
from vlbench.cli.progress import Bars, Lines, open_progress, progress_of_run
from vlbench.core.progress import Silent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only element."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_ten_seconds_and_at_the_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for second in range(26):
        clock[0] = float(second)
        lines.step("reading", second, 25, "loss 0.1" if second == 10 else "")
    assert capsys.readouterr().err.splitlines() == ["reading: 10/25 loss 0.1", "reading: 20/25", "reading: 25/25"]


def test_what_takes_a_moment_is_not_told(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for _ in range(2):  # the second time it starts anew
        for done in range(3):
            clock[0] += 0.5
            lines.step("counting", done, 2)
        clock[0] += 100
    lines.say("told")
    assert capsys.readouterr().err == "told\n"


def test_numbers_of_different_work_stay_apart(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.step("one", 0, 5_000)
    clock[0] = 9.0
    lines.step("other", 0, 7)
    clock[0] = 11.0
    lines.step("other", 1, 7)
    lines.step("one", 1_234, 5_000)
    assert capsys.readouterr().err == "one: 1,234/5,000\n"


def test_the_way_fits_the_stream(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open_progress(quiet=True) as quiet, open_progress() as plain:
        assert (type(quiet), type(plain)) == (Silent, Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with open_progress() as shown:
        assert type(shown) is Bars


def test_bars_count_along() -> None:
    with Progress(console=Console(file=io.StringIO()), auto_refresh=False) as rich:
        bars = Bars(rich)
        bars.step("reading", 3, 10)
        bars.step("writing", 1, 2)
        assert [(task.description, task.completed, task.total) for task in rich.tasks] == [
            ("reading", 3, 10),
            ("writing", 1, 2),
        ]
        bars.step("reading", 10, 10)
        bars.step("writing", 2, 2)
        assert rich.finished


def test_every_run_has_a_bar_of_its_own() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bars = Bars(Progress(console=console, auto_refresh=False))
    first, second = progress_of_run(bars, "nlvr2 with cvlp"), progress_of_run(bars, "gqa with cvlp")
    for what in ("finetuning", "selecting", "predicting"):
        for done in (1, 2):
            first.step(what, done, 2)
    second.step("finetuning", 1, 4)
    rows = [(task.description, task.completed, task.total) for task in bars.progress.tasks]
    assert rows == [("nlvr2 with cvlp: predicting", 2, 2), ("gqa with cvlp: finetuning", 1, 4)]


def test_names_of_runs_are_no_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with open_progress() as bars:
        progress_of_run(bars, "nlvr2 with [/b][red]/m.py:M").step("finetuning", 1, 2)
    assert "nlvr2 with [/b][red]/m.py:M: fi" in capsys.readouterr().err


def test_lines_of_several_runs_begin_with_their_names(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    first, second = progress_of_run(lines, "first"), progress_of_run(lines, "second")
    first.say("starts")
    for done in range(3):
        clock[0] += 6.0
        first.step("finetuning", done, 2)
        second.step("finetuning", done, 9)
    assert capsys.readouterr().err.splitlines() == [
        "first: starts",
        "first: finetuning: 2/2",
        "second: finetuning: 2/9",
    ]
    assert isinstance(progress_of_run(Silent(), "first"), Silent)
