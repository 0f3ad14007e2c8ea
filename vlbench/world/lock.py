"""A lock between processes that the kernel takes back when its holder dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Wait for the lock and hold it until the block or the process ends. The empty file stays.

    The lock belongs to this process alone: a worker it forked does not hold it on when this process is killed.

    Raises:
        OSError: the file cannot be made or locked.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
