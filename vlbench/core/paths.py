"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

from vlbench.core.errors import VlbenchError


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
