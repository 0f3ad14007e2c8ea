"""Progress on stderr: bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vlbench.core.errors import printable
from vlbench.core.progress import Progress as ProgressProtocol
from vlbench.core.progress import Silent

SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_A_MOMENT = 2.0


class Bars:
    """One bar per kind of work."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(printable(line), highlight=False, markup=False)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Move a bar; a finished bar is removed when its work starts again."""
        if what not in self.bars:
            self.bars[what] = self.progress.add_task(what, total=total, note="")
        self.progress.update(self.bars[what], completed=done, total=total, note=note)
        if done >= total:
            self.progress.update(self.bars.pop(what), refresh=True)


class Lines:
    """A line every few seconds, and one at the end of work that took longer than a moment."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}
        self.last: dict[str, float] = {}

    def say(self, line: str) -> None:
        """Print the line."""
        sys.stderr.write(f"{printable(line)}\n")  # at once, so that lines of other processes do not come between
        sys.stderr.flush()

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Print a line if the last one is old enough, or if the work is done."""
        now = time.monotonic()
        waited = now - self.last.setdefault(what, now)
        lasted = now - self.started.setdefault(what, now)
        if done >= total:
            del self.started[what], self.last[what]
        if waited < SECONDS_BETWEEN_LINES and (done < total or lasted < SECONDS_OF_A_MOMENT):
            return
        if done < total:
            self.last[what] = now
        self.say(f"{what}: {done:,}/{total:,}{' ' + note if note else ''}")


class RunBar:
    """One bar for all work of one of several runs."""

    def __init__(self, bars: Bars, name: str) -> None:
        self.bars, self.name = bars, name
        self.bar: TaskID | None = None

    def say(self, line: str) -> None:
        """Print a line above the bars, with the run's name."""
        self.bars.say(f"{self.name}: {line}")

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Move the run's bar, which names its present work."""
        progress, text = self.bars.progress, printable(f"{self.name}: {what}")
        if self.bar is None:
            self.bar = progress.add_task(text, note="")
        progress.update(self.bar, description=text, completed=done, total=total, note=note, refresh=done >= total)


class RunProgress:
    """A Progress of one of several runs: its name comes first in every line."""

    def __init__(self, progress: ProgressProtocol, name: str) -> None:
        self.progress, self.name = progress, name

    def say(self, line: str) -> None:
        """Show the line."""
        self.progress.say(f"{self.name}: {line}")

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show the step."""
        self.progress.step(f"{self.name}: {what}", done, total, note)


def progress_of_run(progress: ProgressProtocol, name: str) -> ProgressProtocol:
    """The progress of one of several runs that go on at once: a bar for each, or lines that begin with its name."""
    if isinstance(progress, Silent):
        return progress
    return RunBar(progress, name) if isinstance(progress, Bars) else RunProgress(progress, name)


@contextmanager
def open_progress(quiet: bool = False) -> Iterator[ProgressProtocol]:
    """Yield bars if stderr is a terminal, else lines; nothing if quiet."""
    if quiet:
        yield Silent()
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield Bars(progress)
