"""Read many run records at once. A record that cannot be read is reported and left out; it does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.garbage import without_garbage_collection
from vlbench.core.paths import expand_home, visible
from vlbench.core.record import RunRecord
from vlbench.records.folder import RunFolder, find_runs, read_record_file


@dataclass(frozen=True)
class FoundRun:
    """A run record and the file that it was read from."""

    path: Path
    record: RunRecord

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path.parent)


@dataclass(frozen=True)
class Collected:
    """The runs in a stable order, and an error message for each record that cannot be read."""

    runs: tuple[FoundRun, ...]
    faults: tuple[str, ...]


def collect(paths: Sequence[Path]) -> Collected:
    """Read every record at or below `paths`; raises VlbenchError as `record_files`."""
    runs, faults = [], []
    with without_garbage_collection():
        for file in record_files(paths):
            try:
                runs.append(FoundRun(file, read_record_file(file)))
            except DataError as error:
                faults.append(error.message)
    runs.sort(key=lambda run: (run.record.task.name, run.record.model.name, run.record.fingerprint, str(run.path)))
    return Collected(tuple(runs), tuple(sorted(faults)))


def record_files(paths: Sequence[Path]) -> list[Path]:
    """The file of every record at or below `paths`: folders of runs, runs, `run.json` files or copies of them
    (`*.json`). A record below several paths counts once. Raises VlbenchError: a path that does not exist, a file that
    is not JSON, or a folder without any record, readable or not.
    """
    # Not Path.resolve, which raises at a link to itself: such a file is reported with the others that cannot be read.
    by_path = {path: list(_files(expand_home(path))) for path in paths}
    if empty := [str(path) for path, records in by_path.items() if not records]:
        raise VlbenchError(f"{', '.join(empty)}: no runs there; give folders with run.json files in or below")
    return list({os.path.realpath(file): file for records in by_path.values() for file in records}.values())


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise VlbenchError(f"{path} is no run: give a run's folder, its run.json, or a folder of runs")
        yield path
    elif path.is_dir():
        records = [folder / "run.json" for folder in find_runs(path)]
        yield from records or visible(path, "*.json")
    else:
        raise VlbenchError(f"{path} is not there: give a run's folder, its run.json, or a folder of runs")
