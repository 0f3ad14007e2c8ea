"""Calls in other processes: every outcome is reported once, whoever fails, stops or dies."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.engine.runtime.calls import Call, LineMessage, ParallelCall, Relay, StepMessage, side_by_side
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted

WORK = """
import os, signal, time
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.engine.runtime.interrupt import Interrupt

def answer(progress, value):
    progress.say(f"answering {value}")
    for done in range(1, 4):
        progress.step("work", done, 3)
    return value, os.getpid()

def fail(progress, code):
    raise VlbenchError("no such thing", ExitCode(code))

def die(progress):
    os.kill(os.getpid(), signal.SIGKILL)

def stop(progress, ready):
    with Interrupt() as interrupt:
        open(ready, "w").close()
        while True:
            time.sleep(0.01)
            interrupt.check()
"""
CALM: list[dict[str, str]] = [{}, {}]


class Noted:
    """A Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, int, int]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((what, done, total))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that new processes can import."""
    (tmp_path / "work_of_calls.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("work_of_calls")
    yield module


def test_every_outcome_by_its_place(work: ModuleType) -> None:
    progress = Noted()
    calls = [
        Call(work.answer, (1,), progress),
        Call(work.fail, (5,), progress),
        Call(work.die, (), progress),
        *(Call(work.answer, (value,), progress) for value in (2, 3)),
    ]
    outcomes = dict(side_by_side(calls, CALM))
    assert sorted(outcomes) == [0, 1, 2, 3, 4]
    assert [outcomes[place].result[0] for place in (0, 3, 4)] == [1, 2, 3]  # type: ignore[index]
    assert (outcomes[1].message, outcomes[1].exit_code) == ("no such thing", ExitCode.DATA)
    assert "was ended by SIGKILL" in outcomes[2].message
    assert sorted(progress.lines) == ["answering 1", "answering 2", "answering 3"]
    assert progress.steps.count(("work", 3, 3)) == 3


def test_a_process_makes_one_call_after_the_other(work: ModuleType) -> None:
    outcomes = side_by_side([Call(work.answer, (value,), Noted()) for value in range(3)], [{}])
    results = [outcome.result for _, outcome in outcomes]
    assert len({process for _, process in results}) == 1  # type: ignore[misc]


def test_an_internal_error_stops_all(work: ModuleType, tmp_path: Path) -> None:
    calls = [Call(work.fail, (1,), Noted()), Call(work.stop, (str(tmp_path / "ready"),), Noted())]
    with pytest.raises(VlbenchError, match="no such thing"):
        list(side_by_side(calls, CALM))


def test_a_signal_reaches_every_process(work: ModuleType, tmp_path: Path) -> None:
    class Press(Noted):
        def say(self, line: str) -> None:
            while not (tmp_path / "ready").exists():
                time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)

    calls = [Call(work.stop, (str(tmp_path / "ready"),), Noted()), Call(work.answer, (1,), Press())]
    with pytest.raises(Interrupted):
        list(side_by_side(calls, CALM))


def test_a_call_beside_this_process(work: ModuleType, tmp_path: Path) -> None:
    progress = Noted()
    with Interrupt() as interrupt, ParallelCall(Call(work.answer, (1,), progress), "the process") as beside:
        value, process = beside.result(interrupt)  # type: ignore[misc]
    assert (value, progress.lines) == (1, ["answering 1"]) and process != os.getpid()
    failing = ParallelCall(Call(work.fail, (5,), progress), "the process")
    with pytest.raises(VlbenchError, match="no such thing"), Interrupt() as interrupt, failing:
        failing.result(interrupt)


def test_a_stopped_process_is_not_killed(work: ModuleType, tmp_path: Path) -> None:
    beside = ParallelCall(Call(work.stop, (str(tmp_path / "ready"),), Noted()), "the process")
    with pytest.raises(Interrupted), Interrupt() as interrupt, beside:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        beside.result(interrupt)
    assert beside.outcome and beside.outcome.exit_code == ExitCode.INTERRUPTED
    assert beside.worker.child.process.exitcode == 0


def test_progress_that_cannot_be_shown_is_the_error(work: ModuleType) -> None:
    class Full(Noted):
        def say(self, line: str) -> None:
            raise VlbenchError("the disk is full", ExitCode.DATA)

    beside = ParallelCall(Call(work.answer, (1,), Full()), "the process")
    with pytest.raises(VlbenchError, match="the disk is full"), Interrupt() as interrupt, beside:
        beside.result(interrupt)


def test_of_many_steps_few_are_sent() -> None:
    class Line:
        def __init__(self) -> None:
            self.sent: list[object] = []

        def send(self, message: object) -> None:
            self.sent.append(message)

    line = Line()
    relay = Relay(line)  # type: ignore[arg-type]
    relay.say("begins")
    for done in range(1, 1001):
        relay.step("work", done, 1000)
    assert line.sent[0] == LineMessage("begins") and line.sent[-1] == StepMessage("work", 1000, 1000, "")
    assert len(line.sent) < 500
