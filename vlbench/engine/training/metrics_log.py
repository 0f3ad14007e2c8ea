"""The lines that a training writes to `metrics.jsonl`: every step once, however often it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlbench.engine.runtime.trackers import Trackers
from vlbench.records.folder import RunFolder

Line = Mapping[str, float | int | str]


@dataclass
class MetricsLog:
    """A callable that appends a line to `metrics.jsonl` and logs it to the trackers.

    A killed process may have logged steps after the state from which training resumes. The first line of a new log says
    at which step it resumes; lines of that step and later ones are dropped first.

    control: marks the lines of a control's trial. writes: false on all ranks but the first, where nothing happens.
    """

    folder: RunFolder
    control: str = ""
    writes: bool = True
    trackers: Trackers = field(default_factory=Trackers)
    started: bool = field(default=False, init=False)

    def __call__(self, line: Line) -> None:
        if not self.writes:
            return
        if not self.started:
            first, self.started = _position(line), True
            self.folder.keep_metrics(lambda old: old.get("control", "") != self.control or _position(old) < first)
        self.folder.append_metrics({"control": self.control, **line} if self.control else line)
        self.trackers.line(line)


def _position(line: Line) -> tuple[int, bool]:
    """The order of lines: after a step's loss come the values of its selection, which is repeated as a whole."""
    return int(line["step"]), "selection" in line


def merge_control(folder: RunFolder, own: RunFolder, control: str) -> None:
    """Move the lines that a control's process wrote to its own log into the run's, after all others.

    A killed process may have moved a part of them: they replace the lines of the same steps.
    """
    log = MetricsLog(folder, control)
    for line in own.read_metrics():
        log(line)
    own.metrics.unlink(missing_ok=True)
