"""Thumbnails of images as `data:` URLs, as many and as large as a page's size allows."""

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
"""Maximum bytes of all images of a page."""
_STEPS = ((192, 72), (144, 68), (112, 60), (88, 50), (64, 45))
"""Longest side in pixels and JPEG quality, largest first."""
_TRIED = 40


@dataclass(frozen=True)
class ReportImages:
    """Image files of a split. paths: by key. texts: example id -> text, to check that the data is that of the record.
    absent: why there are none."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    absent: str = ""


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails: key -> `data:` URL, and notes about missing ones."""

    urls: Mapping[str, str]
    notes: tuple[str, ...]


def thumbnails(paths: Mapping[str, Path], budget: int = BUDGET) -> Thumbnails:
    """Thumbnails at the largest size that fits the budget, by a sample of images; the first ones if not all fit."""
    keys = list(paths)
    tried = keys[:: max(1, len(keys) // _TRIED)][:_TRIED]
    step = next((size for size in _STEPS if _mean_bytes(paths, tried, *size) * len(keys) <= 0.9 * budget), _STEPS[-1])
    addresses: dict[str, str] = {}
    unread, spent = 0, 0
    for key in keys:
        address = _address(paths[key], *step)
        if address is None:
            unread += 1
        elif spent + len(address) > budget:
            break
        else:
            addresses[key] = address
            spent += len(address)
    counts = {"cannot be read": unread, "are left out to keep this file small": len(keys) - len(addresses) - unread}
    notes = tuple(f"{count:,} of {len(keys):,} images {what}" for what, count in counts.items() if count)
    return Thumbnails(addresses, notes)


def _mean_bytes(paths: Mapping[str, Path], keys: Sequence[str], side: int, quality: int) -> float:
    sizes = [len(address) for key in keys if (address := _address(paths[key], side, quality)) is not None]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _address(path: Path, side: int, quality: int) -> str | None:
    try:
        image = open_image(path)
    except DataError:
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
