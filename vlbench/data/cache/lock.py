"""One writer per shared place: a lock of the kernel that other processes wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file at `path` until the block ends, waiting while another process holds it.

    Its folder must exist. The kernel releases the lock when its holder dies. The file stays: removing it would let a
    third process lock a new file while a second one waits for the old. on_wait: called once if the process has to wait.
    Raises OSError if the file cannot be written or locked.
    """
    from filelock import FileLock, Timeout

    path.touch()  # with the permissions of the umask, so that a group can share the place
    lock = FileLock(path, thread_local=False, fallback_to_soft=False, preserve_lock_file=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is not None:
            on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
