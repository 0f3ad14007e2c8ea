"""Names of temporary files and folders, and the removal of those whose writer is dead."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_NAME = re.compile(r"\..+\.(?:(?P<machine>[0-9a-f]{8})-)?(?P<process>\d{1,10})-[0-9a-f]{8}", re.DOTALL)
"""A name that `temporary_path` makes; earlier versions made it without the machine."""
_ABANDONED = 7 * 24 * 3600
"""Seconds without a write after which a temporary file of another machine is taken for one of a dead process."""
_swept: dict[Path, int] = {}
"""Folders that were swept, with the process that did it: a forked process sweeps again."""


def temporary_path(path: Path) -> Path:
    """A new hidden name beside `path` that says which process of which machine writes it.

    Once per process and folder, the temporary files of dead processes are removed from it: what a killed process has
    left goes away when its folder is next written to.
    """
    folder = path.parent
    if _swept.get(folder) != os.getpid():
        _swept[folder] = os.getpid()
        sweep(folder)
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}")


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders whose writer is dead; what cannot be read or removed stays.

    A process is looked up only on the machine that the name states. Machines that share a disk, and containers, do not
    see each other's processes: what they write is removed after a week without a write.
    """
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if (match := _NAME.fullmatch(entry.name)) and _is_dead(
                Path(entry), match["machine"], int(match["process"])
            ):
                _remove(Path(entry))


def _is_dead(path: Path, machine: str | None, process: int) -> bool:
    if machine == _machine():
        return not _is_running(process)
    with suppress(OSError):
        return time.time() - max(file.lstat().st_mtime for file in (path, *path.glob("*"))) > _ABANDONED
    return False


def _is_running(process: int) -> bool:
    """Whether there is such a process on this machine, which may be a newer one of the same number."""
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@cache
def _machine() -> str:
    """Eight digits for the machine and, in a container, its own numbering of processes."""
    try:
        numbering = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbering = ""
    return hashlib.sha256(f"{socket.gethostname()}|{numbering}".encode()).hexdigest()[:8]
