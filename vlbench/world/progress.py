"""Count what passes by, for whoever shows progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told what is being made, how much of it is done, and how much there is."""

_EVERY = 64


def counted(items: Iterable[Item], total: int, what: str, progress: Progress) -> Iterator[Item]:
    """The items, `progress` being told of every 64th and the last of them once it has been dealt with."""
    for done, item in enumerate(items, start=1):
        yield item
        if done % _EVERY == 0 or done == total:
            progress(what, done, total)
