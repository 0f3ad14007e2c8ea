"""Fetch the files of a task that can be downloaded."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from vlbench.core.cards import Download
from vlbench.core.errors import DataError, first_five
from vlbench.core.progress import Progress
from vlbench.data.cache.folder import cannot_write
from vlbench.data.cache.lock import exclusive
from vlbench.data.files.download import Patience, download, partial_files
from vlbench.data.files.unpack import temporary_folder, unpack

State = Literal["there", "missing", "by hand"]
NOTES = Path(".vlbench", "downloads")
"""The folder below the data root for locks and for the hashes of what was downloaded."""


@dataclass(frozen=True)
class Place:
    """A source of files and where they belong below the data root.

    absent: its files that are not in the folder; all while an archive is not completely unpacked. leftovers: what an
    interrupted command left there.
    """

    source: Download
    root: Path
    absent: tuple[str, ...]
    leftovers: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.root / self.source.to

    @property
    def state(self) -> State:
        """Whether all files are there, can be downloaded, or have to be requested from their owners."""
        return "there" if not self.absent else "missing" if self.source.url else "by hand"


def places(sources: Sequence[Download], root: Path) -> list[Place]:
    """What is there below the data root of each source."""
    return [_look(source, root) for source in sources]


def _look(source: Download, root: Path) -> Place:
    folder = root / source.to
    target = folder / source.name
    unpacking = temporary_folder(target, folder)
    temporary = (*partial_files(target), unpacking) if source.url else ()
    leftovers = tuple(path for path in temporary if path.exists())
    # The files of an archive are moved one by one, so those that exist may be a part of them until it is deleted.
    unfinished = unpacking in leftovers and target.is_file()
    absent = tuple(name for name in source.gives if unfinished or not (folder / name).exists())
    return Place(source, root, absent, leftovers)


def fetch(place: Place, progress: Progress, patience: Patience | None = None) -> None:
    """Download one source, unpack an archive, which is then deleted, and delete what interrupted commands left.

    Other processes that fetch the same source wait. Raises DataError if it fails, or if a link leads out of the root.
    """
    source, root = place.source, place.root
    notes = root / NOTES
    _check_links(root, (place.folder, notes, *partial_files(place.folder / source.name)))
    try:
        notes.mkdir(parents=True, exist_ok=True)
        with exclusive(
            notes / f"{_short_name(source.name, f'{source.to}/{source.name}')}.lock",
            lambda: progress.say(f"waiting for another process that is fetching {source.name}"),
        ):
            current = _look(source, root)  # another process may have fetched it since
            if current.absent:
                _download(current, progress, patience)
            for path in _look(source, root).leftovers:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise cannot_write(Path(error.filename or root), error) from None


def _download(place: Place, progress: Progress, patience: Patience | None) -> None:
    source, target = place.source, place.folder / place.source.name
    if not target.is_file():
        step = partial(progress.step, f"fetching {source.name}")
        note = place.root / NOTES / f"{_short_name(source.name, source.url)}.json"
        download(source.url, target, source.checksums, step, patience, note)
    if source.unpack:
        unpack(target, place.folder, partial(progress.step, f"unpacking {source.name}"), source.unpacked_gb)
    absent = [name for name in source.gives if not (place.folder / name).exists()]
    if absent:
        raise DataError(f"{source.url} does not hold {first_five(absent)}: check the task's homepage")


def _short_name(name: str, identity: str) -> str:
    """A file name that begins with `name` and differs for each identity."""
    return f"{name[:100]}.{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _check_links(root: Path, paths: Sequence[Path]) -> None:
    inside = root.resolve()
    for path in paths:
        if not path.resolve().is_relative_to(inside):
            raise DataError(
                f"{path} is a link that leads out of {root}, to {path.resolve()}, so nothing is written there: replace "
                f"it by a folder, or give the place that it leads to as --data-root"
            )
