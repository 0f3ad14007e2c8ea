"""Folders that are replaced whole: killed at any instant, the old one or the new one is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from vlbench.core.errors import DataError


def before(folder: Path) -> Path:
    """Where the folder lies that a newer one has taken the place of."""
    return folder.with_name(f"{folder.name}.before")


def replace_folder(folder: Path, write: Callable[[Path], None], *, keep: bool = False) -> None:
    """Write a folder beside the old one, down to the disk, then put it in its place. keep: the old one as `before`.

    One writer at a time: what others left half-written is removed.

    Raises:
        DataError: it cannot be written; the old one stays as it was.
    """
    beside = folder.with_name(f"{folder.name}.new")
    try:
        settle(folder)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write(beside)
        _to_disk(beside)
        if folder.exists():
            shutil.rmtree(before(folder), ignore_errors=True)
            folder.rename(before(folder))
        beside.rename(folder)
        synchronise(folder.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        settle(folder)
        raise DataError(f"cannot write {folder} ({error}): free some space or give another --output-path") from None
    if not keep:
        shutil.rmtree(before(folder), ignore_errors=True)


def settle(folder: Path) -> None:
    """Undo half a replacement: the old folder back in its place where the new one has not taken it."""
    if not folder.exists():
        with suppress(FileNotFoundError):  # there is none, or another process was faster
            before(folder).rename(folder)


def remove_folder(folder: Path) -> None:
    """Remove it with all that replacing it may have left."""
    for path in (folder, before(folder), folder.with_name(f"{folder.name}.new")):
        shutil.rmtree(path, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """A name may reach the disk before what it names does, and power may fail in between."""
    for path in (*folder.iterdir(), folder):
        synchronise(path)


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # folders have no descriptors there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
