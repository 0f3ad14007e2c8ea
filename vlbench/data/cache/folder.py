"""The cache folder, atomic writing of files, and hashes of files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from vlbench.core.errors import DataError
from vlbench.core.paths import expand_home
from vlbench.data.cache.temporary import temporary_path

_SHA256_LENGTH = 64
_UNSETTLED = 2 * 10**9
"""Nanoseconds within which two changes of a file may get the same time on file systems with coarse clocks."""


NO_CACHE = Path(os.devnull) / "vlbench"
"""The cache folder of a user without a home folder."""


def cache_folder() -> Path:
    """Return the cache folder: `$VLBENCH_CACHE`, else the platform's folder for caches. It may not exist yet.

    A user without a home folder, as in some containers, has none: the path is then `NO_CACHE`, where nothing can be
    read or written.
    """
    chosen = os.environ.get("VLBENCH_CACHE")
    if chosen:
        return expand_home(Path(chosen))
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vlbench"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "vlbench"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlbench"
    except RuntimeError:  # neither $HOME nor an entry in the list of users
        return NO_CACHE


class CannotWrite(DataError):
    """A path that cannot be written: a full disk, a file where a folder should be, no permission (exit 5)."""


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """The error for a path that cannot be written; for one in the cache, the message names `$VLBENCH_CACHE`."""
    reason, cache = error.strerror or type(error).__name__, cache_folder()
    if not path.is_relative_to(cache):
        return CannotWrite(f"cannot write {path} ({reason}): free space, or give a folder that can be written")
    fault = "there is no home folder to cache data in" if cache == NO_CACHE else f"cannot write {path} ({reason})"
    return CannotWrite(f"{fault}: set VLBENCH_CACHE to a folder that can be written, on a disk with free space")


def cannot_read(path: Path, error: OSError) -> DataError:
    """The error for a file that cannot be read."""
    return DataError(f"cannot read {path} ({error.strerror}): give a readable file")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the same folder that is synced and renamed to `path` when the block ends without error.

    Parent folders are created. After an error no partial file is left, and an older file at `path` is unchanged. Raises
    DataError if it cannot be written.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file with `atomic_file`; text is encoded as UTF-8. Raises DataError if it cannot be written."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def remember(path: Path, content: str) -> None:
    """Write a note that only saves time with `atomic_file`; where that is impossible, the work goes on without it."""
    with contextlib.suppress(CannotWrite):
        atomic_write(path, content)


def file_sha256(path: Path, cache: Path, again: bool = False) -> str:
    """Return the SHA-256 of a file's content, remembered in the cache while the file's path and `stamp` stay the same.

    The hash of a file that changed within the last two seconds is not remembered: another change could get the same
    times. Nothing is remembered in a cache that cannot be written. No lock is needed: all processes write the same hash
    under the same name. again: ignore the remembered hash and remember the new one. Raises DataError if the file cannot
    be read.
    """
    try:
        before = path.stat()
        identity = f"{path.resolve()}|{stamp(before)}"
        note = cache / "sha256" / hashlib.sha256(identity.encode()).hexdigest()
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if not again and len(remembered := note.read_text("ascii")) == _SHA256_LENGTH:
                return remembered
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        unchanged = stamp(path.stat()) == stamp(before)
    except OSError as error:
        raise cannot_read(path, error) from None
    if unchanged and time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > _UNSETTLED:
        remember(note, digest)
    else:
        with contextlib.suppress(OSError):
            note.unlink()
    return digest


def stamp(status: os.stat_result) -> str:
    """Return what tells a changed file from its older version without reading it: size, both times and the inode.

    Programs can set the time of modification, but not the time of the last status change.
    """
    return f"{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"


def files_sha256(files: Iterable[Path]) -> str:
    """Return one SHA-256 of small files by name and content, in any order; files that do not exist are ignored."""
    digest = hashlib.sha256()
    for file in sorted(filter(Path.is_file, files)):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
