"""Replace folders atomically: if the process is killed at any moment, the old or the new folder is there in full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from vlbench.core.errors import DataError, is_out_of_memory


def previous(folder: Path) -> Path:
    """The path that a folder is moved to when a newer one replaces it."""
    return folder.with_name(f"{folder.name}.before")


def replace_folder(folder: Path, write: Callable[[Path], None], *, keep: bool = False) -> None:
    """Write a new folder next to the old one, flush it to the disk, then rename it.

    Only one process may write at a time: incomplete folders of other writers are removed. keep: keep the old folder, at
    the path `previous(folder)`.

    Raises:
        DataError: the folder cannot be written; the old one is unchanged.
    """
    new = _incomplete(folder)
    try:
        recover_folder(folder)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        write(new)
        for path in (*new.iterdir(), new):  # before the rename, which may reach the disk before the content
            flush(path)
        if folder.exists():
            shutil.rmtree(previous(folder), ignore_errors=True)
            folder.rename(previous(folder))
        new.rename(folder)
        flush(folder.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(new, ignore_errors=True)
        recover_folder(folder)
        if is_out_of_memory(error):
            raise
        raise DataError(f"cannot write {folder} ({error}): free some space or give another --output-path") from None
    if not keep:
        shutil.rmtree(previous(folder), ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Undo an incomplete replacement: move the old folder back if no new one has taken its place."""
    if not folder.exists() and previous(folder).exists():  # a finished run's folder may be read-only
        with suppress(FileNotFoundError):  # there is none, or another process was faster
            previous(folder).rename(folder)


def drop_resume_state(run: Path) -> None:
    """Delete what only resuming needs from the folder of a finished run; its process must hold the run's lock."""
    for checkpoints in (run / "checkpoints", *(run / "controls").glob("*/")):
        drop_training_state(checkpoints)
    shutil.rmtree(run / "shards", ignore_errors=True)


def drop_training_state(folder: Path) -> None:
    """Delete what only the resuming of a training needs from its folder of checkpoints; `best` stays."""
    remove_folder(folder / "last")
    best = folder / "best"
    recover_folder(best)
    for path in (previous(best), _incomplete(best)):
        shutil.rmtree(path, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder and everything that replacing it may have left."""
    for path in (folder, previous(folder), _incomplete(folder)):
        shutil.rmtree(path, ignore_errors=True)


def _incomplete(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.new")


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    if os.name == "nt" and path.is_dir():  # folders have no descriptors there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
