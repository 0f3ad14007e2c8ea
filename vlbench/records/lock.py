"""One run folder, one writer. The kernel holds the lock, so a dead process never leaves one behind."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlbench.core.errors import ExitCode, VlbenchError

LOCK_NAME = ".lock"
PATIENCE = 20.0
"""Seconds that what a killed run has forked may hold its lock on: data workers look for their parent every five."""


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the folder exclusively; the lock ends with the block or with the process, however that ends.

    The lock file itself stays, empty: removing it would let a third process lock a new one beside a waiting second.
    While the lock is held the file says by which process of which machine.

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
        _sign(handle, f"{os.getpid()} {socket.gethostname()}")
        try:
            yield
        finally:
            _sign(handle, "")
    finally:
        os.close(handle)


def _acquire(handle: int, folder: Path) -> None:
    """Take the lock, at once unless its holder has died and only its children are left."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _lock(handle)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise _no_lock(folder, error) from None
        process, host = _signed(handle)
        if not _is_dead(process, host) or time.monotonic() > deadline:
            by = f" (process {process} on {host})" if host else ""
            raise VlbenchError(
                f"{folder} is being written by another run of the same spec{by}: wait for it, stop it, "
                f"or give another --output-path"
            )
        time.sleep(0.1)


def _sign(handle: int, holder: str) -> None:
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, holder.encode())


def _signed(handle: int) -> tuple[str, str]:
    """Process and machine of the holder; empty where it has not said so yet, or where a locked file is not readable."""
    if sys.platform == "win32":
        return "", ""
    os.lseek(handle, 0, os.SEEK_SET)
    process, _, host = os.read(handle, 256).decode("utf8", "replace").partition(" ")
    return process, host


def _is_dead(process: str, host: str) -> bool:
    """Whether that process was one of this machine and is no more."""
    if not process.isdigit() or host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False


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
