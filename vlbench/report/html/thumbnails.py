"""Small copies of pictures as `data:` addresses, as many and as fine as a page may weigh."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from vlbench.core.errors import DataError
from vlbench.data.images.load import open_image

BUDGET = 14 << 20
"""Bytes that all pictures of a page may take together."""
_STEPS = ((192, 72), (144, 68), (112, 60), (88, 50), (64, 45))
"""Longest side in pixels and JPEG quality, finest first."""
_TRIED = 40


@dataclass(frozen=True)
class PictureFiles:
    """Where the pictures of a split lie. paths: by key. texts: id -> text of its examples, which tells that it is the
    data of the record. absent: why there are none."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    absent: str = ""


@dataclass(frozen=True)
class Thumbnails:
    """key -> `data:` address, and what is said about those that are missing."""

    found: Mapping[str, str]
    notes: tuple[str, ...]


def thumbnails(paths: Mapping[str, Path], budget: int = BUDGET) -> Thumbnails:
    """The pictures, as fine as the budget allows by a sample of them; the first ones where not all fit."""
    keys = list(paths)
    tried = keys[:: max(1, len(keys) // _TRIED)][:_TRIED]
    step = next((one for one in _STEPS if _mean_bytes(paths, tried, *one) * len(keys) <= 0.9 * budget), _STEPS[-1])
    found: dict[str, str] = {}
    unread, spent = 0, 0
    for key in keys:
        address = _address(paths[key], *step)
        if address is None:
            unread += 1
        elif spent + len(address) > budget:
            break
        else:
            found[key] = address
            spent += len(address)
    return Thumbnails(found, tuple(_notes(len(keys), unread, len(keys) - len(found) - unread)))


def _notes(total: int, unread: int, left_out: int) -> list[str]:
    notes = [f"{unread:,} of {total:,} pictures cannot be read"] if unread else []
    return [*notes, f"{left_out:,} of {total:,} pictures are left out, to keep this file small"] if left_out else notes


def _mean_bytes(paths: Mapping[str, Path], keys: Sequence[str], side: int, quality: int) -> float:
    sizes = [len(address) for key in keys if (address := _address(paths[key], side, quality)) is not None]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _address(path: Path, side: int, quality: int) -> str | None:
    try:
        picture = open_image(path)
    except DataError:
        return None
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
