"""Where vlbench keeps what it can make again, and how it writes a file: wholly or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from vlbench.core.errors import DataError

_SHA256_LENGTH = 64
_UNSETTLED = 2 * 10**9
"""Nanoseconds within which two changes of a file may get the same time, as coarse file systems keep it."""


def cache_folder() -> Path:
    """The cache: `$VLBENCH_CACHE`, else the platform's folder for caches. It may not exist yet."""
    own = os.environ.get("VLBENCH_CACHE")
    if own:
        return Path(own).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vlbench"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vlbench"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlbench"


def cannot_write(path: Path, error: OSError) -> DataError:
    """The error for a place that cannot be written: a full disk, a file where a folder should be, no permission."""
    reason = error.strerror or type(error).__name__
    return DataError(f"cannot write {path} ({reason}): free space, or give a folder that can be written")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is written beside its place, synced, and moved there when the block ends well.

    Parent folders are made. Whatever goes wrong, nothing half-written is left and an older file stays as it was.

    Raises:
        DataError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a whole file as `atomic_file` does; text is UTF-8. Raises DataError if it cannot be written."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def file_sha256(path: Path, cache: Path, again: bool = False) -> str:
    """The hash of a file's content, remembered in the cache as long as `stamp` and path stay.

    A file that changed within the last two seconds is not remembered: another change could leave the same times.

    Args:
        path: of the file.
        cache: the folder of the cache.
        again: hash it whatever is remembered, and remember that.

    Raises:
        DataError: it cannot be read.
    """
    try:
        seen = path.stat()
        known = f"{path.resolve()}|{stamp(seen)}"
        note = cache / "sha256" / hashlib.sha256(known.encode()).hexdigest()
        if not again and note.is_file() and len(remembered := note.read_text("ascii")) == _SHA256_LENGTH:
            return remembered
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        settled = stamp(path.stat()) == stamp(seen)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): give a readable file") from None
    if settled and time.time_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns) > _UNSETTLED:
        atomic_write(note, digest)
    else:
        with contextlib.suppress(OSError):
            note.unlink()
    return digest


def stamp(seen: os.stat_result) -> str:
    """What tells a file from what it was before without reading it: size, both times and the inode.

    The time of modification can be set by anybody, that of the last change of the file's status cannot.
    """
    return f"{seen.st_size}|{seen.st_mtime_ns}|{seen.st_ctime_ns}|{seen.st_ino}"


def files_sha256(files: Iterable[Path]) -> str:
    """The hash of small files by name and content, in any order; one that is not there does not count."""
    digest = hashlib.sha256()
    for file in sorted(filter(Path.is_file, files)):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
