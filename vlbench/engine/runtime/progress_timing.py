"""The progress of a run, shown and logged, and how long inference took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from accelerate import Accelerator

from vlbench.core.errors import DataError, printable
from vlbench.core.progress import Progress
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.ranks import Ranks
from vlbench.records.provenance import without_home


class Logged:
    """A Progress that also writes each line to `log.txt`, with the time and without home paths."""

    def __init__(self, progress: Progress, path: Path) -> None:
        self.progress, self.path = progress, path

    def say(self, line: str) -> None:
        """Show the line and append it to the log; a DataError if the log cannot be written."""
        self.progress.say(line)
        line = without_home(printable(line))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with self.path.open("a", encoding="utf8") as file:
                file.write(f"{now} {line}\n")
        except OSError as error:
            raise DataError(f"cannot write {self.path} ({error.strerror}): free some space on its disk") from None

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show the step; `metrics.jsonl` holds the steps, so the log does not."""
        self.progress.step(what, done, total, note)


@dataclass(frozen=True)
class Pace:
    """Where inference runs, in which batches, and how it is shown and stopped.

    batch_size: examples, or pairs of a gallery, per forward pass. workers: processes that prepare inputs. what: names
    the work where progress is shown. stops: whether a signal stops it midway; false within training, which all
    processes must resume together. records_errors: whether an example that cannot be answered is recorded as an error
    instead of ending the work.
    """

    accelerator: Accelerator
    batch_size: int
    workers: int
    progress: Progress
    interrupt: Interrupt
    what: str
    stops: bool = True
    records_errors: bool = False

    @property
    def ranks(self) -> Ranks:
        """This process's rank among those that share the work."""
        return Ranks.of(self.accelerator)

    def step(self, done: int, total: int) -> None:
        """Show the progress, then `check`."""
        self.progress.step(self.what, done, total)
        self.check()

    def check(self) -> None:
        """Raise Interrupted if a signal has been received."""
        if self.stops or self.ranks.size == 1:
            self.interrupt.check()


@dataclass
class Timing:
    """The wall-clock time of one process's inference, data preparation included.

    batches: seconds of each batch. examples: the number of examples (of a gallery, images and texts) that this process
    answered, each counted by one process.
    """

    batches: list[float] = field(default_factory=list)
    examples: int = 0


def examples_per_second(timings: Sequence[Timing]) -> float:
    """The throughput of processes that share the work: all examples over the longest time; 0 without any."""
    longest = max((sum(timing.batches) for timing in timings), default=0.0)
    return sum(timing.examples for timing in timings) / longest if longest else 0.0
