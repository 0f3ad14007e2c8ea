"""One writer per shared place: a lock of the kernel that other processes wait for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vlbench.data.cache.folder import CannotWrite, cache_folder, cannot_write

if TYPE_CHECKING:
    from filelock import FileLock


def kernel_lock(path: Path, on_acquired: Callable[[int], None] | None = None) -> FileLock:
    """A lock that is not held yet, for all threads of the process. Its file is made, in a folder that must exist.

    The kernel releases it when its holder dies. The file stays: removing it would let a third process lock a new file
    while a second one waits for the old. on_acquired: called with the descriptor of the file, the only one that can
    write to it on Windows. Raises OSError if the file cannot be made.
    """
    from filelock import FileLock

    # With the permissions of the umask, so that a group can share the place. And filelock would make a folder that is
    # missing, and take a file that cannot be made for a held one.
    path.touch()
    return FileLock(
        path,
        thread_local=False,
        fallback_to_soft=False,  # a lock that is a file's existence would outlive a process that is killed
        preserve_lock_file=True,
        on_acquired=on_acquired,
    )


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file at `path` until the block ends, waiting while another process holds it.

    on_wait: called once if the process has to wait. Raises OSError as `kernel_lock`, or if the file cannot be locked.
    """
    from filelock import Timeout

    lock = kernel_lock(path)
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
