"""Whose fault an unexpected exception is: that of vlbench, or of the user's own model, task, metric or script."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from vlbench.core.errors import ExitCode, VlbenchError, shortage

_GROUPS = ("vlbench.models", "vlbench.tasks")
LIBRARIES = frozenset({"site-packages", "dist-packages"})
"""The names of the folders of installed packages."""
_FRAMES = 5
"""The number of frames of the user's code that are shown."""


class UserCodeError(VlbenchError):
    """A fault of the user's code (exit 13). frames: the last frames of that code, as Python prints them."""

    def __init__(self, message: str, frames: str = "") -> None:
        super().__init__(message, ExitCode.USER_CODE)
        self.frames = frames


def print_frames(error: Exception) -> None:
    """Print the frames of the user's code to stderr, where the error is a fault of it; its sentence follows them."""
    if isinstance(error, UserCodeError):
        print(error.frames, end="", file=sys.stderr)


@contextmanager
def user_faults() -> Iterator[None]:
    """Raise a UserCodeError instead of an exception for which the user's code is to blame.

    A SystemExit counts as well, as every exception but Ctrl-C: code that leaves early has not done its work.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        fault = user_fault(error)
        if fault is None:
            raise
        raise fault from error


@contextmanager
def same_folder() -> Iterator[None]:
    """Return to the working directory at the end of the block: the user's code in it may call `os.chdir`."""
    before = Path.cwd()
    try:
        yield
    finally:
        if Path.cwd() != before:
            os.chdir(before)


def user_fault(error: BaseException) -> UserCodeError | None:
    """The error to report if the exception passed through the user's code; None for every other one, for errors that
    vlbench reports by itself, and for a lack of memory or disk. It holds the notes of the exception.
    """
    if isinstance(error, VlbenchError) or (isinstance(error, Exception) and shortage(error)):
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_of_user(frame.filename)]
    if isinstance(error, SyntaxError) and error.filename and _is_of_user(error.filename):
        frames.append(traceback.FrameSummary(error.filename, error.lineno, "<module>", line=error.text))
    if not frames:
        return None
    last = frames[-1]
    reason = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()) if "\n" not in note)
    return UserCodeError(
        f"{last.filename}, line {last.lineno}, in {last.name}{notes}: {reason}; this is not code of vlbench: correct "
        f"it, and the same command runs again",
        "".join(traceback.format_list(frames[-_FRAMES:])),
    )


def _is_of_user(file: str) -> bool:
    if file.startswith("<"):
        return False
    path = Path(file).resolve()
    if any(path.is_relative_to(folder) for folder in _installed_plugins()):
        return True
    return not (LIBRARIES.intersection(path.parts) or any(path.is_relative_to(folder) for folder in _not_of_user()))


@cache
def _not_of_user() -> tuple[Path, ...]:
    """The folders of vlbench, its tasks and the standard library."""
    tasks = find_spec("vlbench._tasks")
    own = [Path(__file__).parents[1], *map(Path, (tasks.submodule_search_locations or ()) if tasks else ())]
    library = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    return tuple(folder.resolve() for folder in (*own, *library))


@cache
def _installed_plugins() -> tuple[Path, ...]:
    """The folders of installed packages that announce models or tasks."""
    names = {entry.module.partition(".")[0] for group in _GROUPS for entry in entry_points(group=group)}
    specs = [spec for name in sorted(names) if (spec := find_spec(name)) is not None]
    places = [Path(place) for spec in specs for place in spec.submodule_search_locations or [spec.origin or ""]]
    return tuple(place.resolve() for place in places if place.name)
