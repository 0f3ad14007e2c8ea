"""What all exporters share: reports of progress, and JSON files with the same bytes on every platform."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")

ProgressCallback: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being generated, the number of items done, and the total."""

_REPORT_EVERY = 64


def with_progress(items: Iterable[Item], total: int, what: str, progress: ProgressCallback) -> Iterator[Item]:
    """Yield the items; call `progress` after every 64th item and after the last."""
    for done, item in enumerate(items, start=1):
        yield item
        if done % _REPORT_EVERY == 0 or done == total:
            progress(what, done, total)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 with line feeds, whatever the platform; parent folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object) -> None:
    """Write one JSON value on one line."""
    write_text(path, json.dumps(content) + "\n")
