"""The lines a training leaves in `metrics.jsonl`: every step once, however often it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlbench.engine.runtime.trackers import Trackers
from vlbench.records.folder import RunFolder

Line = Mapping[str, float | int | str]


@dataclass
class Journal:
    """Called with a line, it adds it, marked by the trial's control where there is one, and tells the trackers; only
    `writes` does.

    A process that was killed may have logged steps beyond the state that is gone on from. The first line of a new one
    says where it goes on, so what the old one logged from there on is dropped before.
    """

    folder: RunFolder
    control: str = ""
    writes: bool = True
    trackers: Trackers = field(default_factory=Trackers)
    begun: bool = field(default=False, init=False)

    def __call__(self, line: Line) -> None:
        if not self.writes:
            return
        if not self.begun:
            self._drop_from(_place(line))
            self.begun = True
        self.folder.append_metrics({"control": self.control, **line} if self.control else line)
        self.trackers.line(line)

    def _drop_from(self, place: tuple[int, bool]) -> None:
        self.folder.keep_metrics(lambda line: line.get("control", "") != self.control or _place(line) < place)


def _place(line: Line) -> tuple[int, bool]:
    """After a step's loss come the values that weights were selected by; a selection is done as a whole or again."""
    return int(line["step"]), "selection" in line
