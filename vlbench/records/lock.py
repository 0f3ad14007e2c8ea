"""One run folder, one writer. The kernel holds the lock, so a dead process never leaves one behind."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlbench.core.errors import ExitCode, VlbenchError

LOCK_NAME = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the folder exclusively; the lock ends with the block or with the process, however that ends.

    The lock file itself stays: removing it would let a third process lock a new one beside a waiting second.

    Raises:
        VlbenchError: another process holds it, or the folder cannot hold a lock file (exit 5).
    """
    path = folder / LOCK_NAME
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _no_lock(folder, error) from None
    try:
        _acquire(handle, folder)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, folder: Path) -> None:
    try:
        _lock(handle)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise _no_lock(folder, error) from None
        holder = os.read(handle, 32).decode("ascii", "replace").strip() if sys.platform != "win32" else ""
        by = f" (process {holder})" if holder else ""
        raise VlbenchError(
            f"{folder} is being written by another run of the same spec{by}: wait for it, stop it, "
            f"or give another --output-path"
        ) from None


def _lock(handle: int) -> None:
    """Take the exclusive lock at once or raise OSError."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _no_lock(folder: Path, error: OSError) -> VlbenchError:
    return VlbenchError(
        f"{folder} cannot be locked ({error.strerror}): give an --output-path on a disk that can be written and locked",
        ExitCode.DATA,
    )
