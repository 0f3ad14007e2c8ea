"""Paths: with a home folder, and relative ones that stay inside their folder or are hidden in it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from vlbench.core.errors import VlbenchError
from vlbench.core.validate import UNTRUSTED

_LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"})
"""Names of files and folders, in lower case, that macOS and Windows leave beside data."""


def expand_home(path: Path, strict: bool = True) -> Path:
    """The path with `~` and `~user` expanded.

    Raises VlbenchError if there is no such home folder; where not `strict`, the path is returned unchanged.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        if not strict:
            return path
        raise VlbenchError(f"{path} starts with a home folder that does not exist: give the path without ~") from None


def leads_out(path: str) -> bool:
    """Whether a path could lead out of the folder that it is joined to, on any operating system."""
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts or any(character in path for character in "\\:\0")


def is_hidden(path: str) -> bool:
    """Whether a relative path has a part that begins with a dot, or that operating systems leave beside data."""
    parts = (part.lower() for part in PurePosixPath(path).parts if part != "..")
    return any(part.startswith(".") or part in _LEFT_BY_SYSTEMS for part in parts)


def visible(folder: Path, pattern: str) -> list[Path]:
    """The paths below the folder that match a glob and are not hidden, such as `._a.json` of macOS; sorted."""
    return sorted(path for path in folder.glob(pattern) if not is_hidden(path.relative_to(folder).as_posix()))


def _stays_inside(path: str, info: ValidationInfo) -> str:
    if info.context == UNTRUSTED and (not path or leads_out(path)):
        raise ValueError("expected a path below the folder of the data, without '..', ':' or backslash")
    return path


RelativePath = Annotated[str, AfterValidator(_stays_inside)]
"""A path or glob that stays below its folder if a card is parsed; code may build cards with any path of the user."""
