"""One writer per shared place: a lock of the kernel that other processes wait for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vlbench.data.cache.folder import CannotWrite, cache_folder, cannot_write


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


@contextmanager
def only_writer(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of a file or folder of the cache, `.NAME.lock` beside it; what one process makes, others wait for.

    Parent folders are created. on_wait: called once if the process has to wait. Raises CannotWrite if the folder cannot
    hold a lock file.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(path.with_name(f".{path.name}.lock"), on_wait))
        except OSError as error:
            raise cannot_write(path, error) from None
        yield


@contextmanager
def only_editor(path: Path) -> Iterator[None]:
    """Hold the lock of a user's file while it is read, changed and written: no process loses the change of another.

    The lock file is in the cache, so that none appears beside the file. Without a cache that can be written, nothing is
    locked.
    """
    with ExitStack() as stack:
        with suppress(CannotWrite):
            name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
            stack.enter_context(only_writer(cache_folder() / "locks" / name))
        yield
