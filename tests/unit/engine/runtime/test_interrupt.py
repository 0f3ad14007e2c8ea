"""Signals take effect between two steps."""

from __future__ import annotations

import os
import signal

import pytest

from vlbench.core.errors import ExitCode
from vlbench.core.progress import Silent
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted, Stoppable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_a_check(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        interrupt.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as caught:
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert caught.value.exit_code == ExitCode.INTERRUPTED == 130
    assert signal.getsignal(number) == before


def test_stoppable_work_stops_at_its_next_step() -> None:
    with Interrupt() as interrupt:
        progress = Stoppable(Silent(), interrupt)
        progress.step("extracting", 1, 3)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            progress.step("extracting", 2, 3)
