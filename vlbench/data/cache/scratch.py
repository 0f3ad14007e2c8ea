"""Temporary folders that do not outlive their process for long: those of killed ones are removed by the next."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vlbench.data.cache.lock import exclusive, kernel_lock

_PREFIX = "vlbench-scratch-"
_LOCK = ".lock"
_SECONDS_TO_LOCK = 60.0
"""A folder that is older and not locked has lost its process."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new temporary folder, locked while its process lives and removed at the end; first those of dead processes go.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, exclusive(Path(folder) / _LOCK):
        yield Path(folder)


def _sweep(parent: Path) -> None:
    """Remove this user's scratch folders that no living process holds."""
    from filelock import Timeout

    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):  # removed by another process meanwhile; alive
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _SECONDS_TO_LOCK:
                continue
            with kernel_lock(folder / _LOCK).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
