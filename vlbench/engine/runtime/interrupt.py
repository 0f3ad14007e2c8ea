"""Ctrl-C and SIGTERM take effect between two steps, never within one, so that a saved state is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Progress


class Interrupted(VlbenchError):
    """The user asked to stop; the state is saved and the run can be resumed (exit 130)."""

    def __init__(self, message: str = "interrupted") -> None:
        super().__init__(message, ExitCode.INTERRUPTED)


class Interrupt:
    """A context that defers the first signal until `check` is called; the second signal acts at once.

    asked: whether a signal has been received.
    """

    def __init__(self) -> None:
        self.asked = False
        self._handlers: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def check(self) -> None:
        """Raise Interrupted if a signal has been received."""
        if self.asked:
            raise Interrupted

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class Stoppable:
    """A Progress for work that may be discarded: it stops at any of its steps when a signal has been received."""

    def __init__(self, progress: Progress, interrupt: Interrupt) -> None:
        self.progress, self.interrupt = progress, interrupt

    def say(self, line: str) -> None:
        """Show the line."""
        self.progress.say(line)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show the step, then raise Interrupted if a signal has been received."""
        self.progress.step(what, done, total, note)
        self.interrupt.check()
