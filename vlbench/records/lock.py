"""One writer per run folder: a lock of the kernel, so a process that dies never leaves a locked folder behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.data.cache.lock import exclusive, kernel_lock

LOCK_NAME = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the folder exclusively until the block or the process ends; a process that was forked holds nothing.

    While the lock is held, the file names the process and machine that hold it; otherwise it is empty.
    Raises VlbenchError: another process holds it, or the folder cannot hold a lock file (exit 5).
    """
    from filelock import Timeout

    path, descriptors = folder / LOCK_NAME, list[int]()
    try:
        lock = kernel_lock(path, descriptors.append)
        lock.acquire(timeout=0)
    except Timeout:
        raise VlbenchError(
            f"{folder} is being written by another run of the same spec{_holder(path)}: wait for it, stop it, "
            f"or give another --output-path"
        ) from None
    except OSError as error:
        raise VlbenchError(
            f"{folder} cannot be locked ({error.strerror}): give an --output-path on a disk that can be written and "
            f"locked",
            ExitCode.DATA,
        ) from None
    try:
        _write_holder(descriptors[0], f"{os.getpid()} {socket.gethostname()}")
        yield
    finally:
        if lock.is_locked:  # not in a forked process, where the descriptor is closed
            _write_holder(descriptors[0], "")
            lock.release()


def await_lock(folder: Path) -> None:
    """Wait until no process holds the `run_lock` of the folder, where there has ever been one."""
    if (folder / LOCK_NAME).is_file():
        with exclusive(folder / LOCK_NAME):
            pass


def _write_holder(descriptor: int, holder: str) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, holder.encode())


def _holder(path: Path) -> str:
    """The process and machine that hold the lock, in brackets; empty where the file cannot be read or is empty."""
    try:
        process, _, host = path.read_text(encoding="utf8", errors="replace")[:256].partition(" ")
    except OSError:
        return ""
    return f" (process {process} on {host})" if host else ""
