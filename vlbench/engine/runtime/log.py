"""What a run says, also kept in its folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from vlbench.core.errors import DataError, printable
from vlbench.core.progress import Progress
from vlbench.records.provenance import without_home


class Logged:
    """A Progress that writes each line, with the time and home paths taken out, to `log.txt` too."""

    def __init__(self, progress: Progress, path: Path) -> None:
        self.progress, self.path = progress, path

    def say(self, line: str) -> None:
        """Show the line and keep it.

        Raises:
            DataError: the log cannot be written.
        """
        self.progress.say(line)
        line = without_home(printable(line))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with self.path.open("a", encoding="utf8") as file:
                file.write(f"{now} {line}\n")
        except OSError as error:
            raise DataError(f"cannot write {self.path} ({error.strerror}): free some space on its disk") from None

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show it; steps are in `metrics.jsonl`."""
        self.progress.step(what, done, total, note)
