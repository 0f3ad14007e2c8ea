"""Ctrl-C and SIGTERM between two steps instead of within one, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Progress


class Interrupted(VlbenchError):
    """The user asked to stop; the state is saved and the run can go on (exit 130)."""

    def __init__(self, message: str = "interrupted") -> None:
        super().__init__(message, ExitCode.INTERRUPTED)


class Interrupt:
    """While open, the first signal is only noted; `check` raises it at a safe place. The second one acts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def check(self) -> None:
        """Raise if a signal has come.

        Raises:
            Interrupted: it has.
        """
        if self.asked:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class Stoppable:
    """A Progress for work that may be thrown away: each step of it is a safe place to stop."""

    def __init__(self, progress: Progress, interrupt: Interrupt) -> None:
        self.progress, self.interrupt = progress, interrupt

    def say(self, line: str) -> None:
        """Show the line."""
        self.progress.say(line)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show the step.

        Raises:
            Interrupted: a signal has come.
        """
        self.progress.step(what, done, total, note)
        self.interrupt.check()
