"""Progress of long work. The caller decides where it is shown: in a terminal, in a log or nowhere."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress from the code that does the work."""

    def say(self, line: str) -> None:
        """Report one line."""

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Report `done` of `total` units of `what`; it ends with done == total."""


class Silent:
    """Shows nothing: the default of the Python API."""

    def say(self, line: str) -> None: ...

    def step(self, what: str, done: int, total: int, note: str = "") -> None: ...
