"""Fetch the files of a task that can be downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from vlbench.core.cards import Download
from vlbench.core.errors import DataError, first_five
from vlbench.core.progress import Progress
from vlbench.data.files.download import Patience, download
from vlbench.data.files.unpack import unpack

State = Literal["there", "missing", "by hand"]


@dataclass(frozen=True)
class Place:
    """A source of files and the folder for them. absent: its files that are not in the folder."""

    source: Download
    folder: Path
    absent: tuple[str, ...]

    @property
    def state(self) -> State:
        """Whether all files are there, can be downloaded, or have to be requested from their owners."""
        return "there" if not self.absent else "missing" if self.source.url else "by hand"


def places(sources: Sequence[Download], root: Path) -> list[Place]:
    """What is there below the data root of each source."""
    return [
        Place(source, root / source.to, tuple(name for name in source.gives if not (root / source.to / name).exists()))
        for source in sources
    ]


def fetch(place: Place, progress: Progress, patience: Patience | None = None) -> None:
    """Download one source and unpack an archive, which is then deleted. Raises DataError if that fails."""
    source = place.source
    target = place.folder / source.name
    if not target.is_file():
        step = partial(progress.step, f"fetching {source.name}")
        download(source.url, target, source.checksums, step, patience)
    if source.unpack:
        unpack(target, place.folder, partial(progress.step, f"unpacking {source.name}"))
        target.unlink()
    absent = [name for name in source.gives if not (place.folder / name).exists()]
    if absent:
        raise DataError(f"{source.url} does not hold {first_five(absent)}: check the task's homepage")
