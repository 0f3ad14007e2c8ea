"""A signal between two steps."""

from __future__ import annotations

import os
import signal

import pytest

from vlbench.core.errors import ExitCode
from vlbench.engine.interrupt import Interrupt, Interrupted


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
