"""How long work shows itself; who shows it (a terminal, a log, nobody) is decided by the caller."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by the one who works: `say` a line, or `step` along something that has an end."""

    def say(self, line: str) -> None:
        """One line of news."""
        ...

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `what`; done == total ends it."""
        ...


class Silent:
    """Shows nothing: the default from Python."""

    def say(self, line: str) -> None:
        """Nothing."""

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Nothing."""
