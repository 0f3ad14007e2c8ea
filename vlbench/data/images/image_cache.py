"""Pictures as networks take them, kept in the cache: decoded and resized once, whoever asks for them again.

What is kept is named by the content of the picture's file and by what was made of it, so neither a changed file nor
another preprocessing ever meets an old entry. Entries are arrays of pixels; nothing else is ever read from them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlbench.core.examples import ImageRef
from vlbench.data.cache.folder import atomic_file, cache_folder, file_sha256
from vlbench.data.images.load import open_image
from vlbench.data.resources import PictureSource

Pixels: TypeAlias = NDArray[np.uint8]
_COUNT_AFTER = 200
"""Entries that a process writes before it looks again how full the cache is."""


@runtime_checkable
class Keeping(Protocol):
    """A source of pictures that also keeps what is made of them."""

    def made(self, ref: ImageRef, how: str, make: Callable[[Image.Image], Pixels]) -> Pixels:
        """What `make` makes of the picture; `how` names it with every number that it depends on."""
        ...


def made(pictures: PictureSource, ref: ImageRef, how: str, make: Callable[[Image.Image], Pixels]) -> Pixels:
    """What `make` makes of a picture, from where it is kept if the source keeps it. Raises as `open_image` does."""
    if isinstance(pictures, Keeping):
        return pictures.made(ref, how, make)
    return make(pictures.open(ref))


def resized(pictures: PictureSource, ref: ImageRef, size: Callable[[int, int], tuple[int, int]], rule: str) -> Pixels:
    """A picture [H, W, 3] in RGB, resized to `size` of its width and height.

    rule: the name of a Pillow filter, then what `size` depends on, such as `bicubic 384 640 32`.
    """
    filter_name = Image.Resampling[rule.split()[0].upper()]

    def make(picture: Image.Image) -> Pixels:
        wanted = size(*picture.size)
        return np.asarray(picture if wanted == picture.size else picture.resize(wanted, filter_name))

    return made(pictures, ref, f"resized {rule}", make)


@dataclass
class KeptPictures:
    """Opens pictures from their files and keeps what is made of them, as long as that is at most `limit` bytes.

    Several processes may share the folder; how full it is, each of them looks up now and then.
    """

    folder: Path
    limit: int
    _used: int = field(default=0, init=False)
    _until_count: int = field(default=0, init=False)

    def open(self, ref: ImageRef) -> Image.Image:
        """The picture in RGB. Raises DataError as `open_image` does."""
        return open_image(ref.path)

    def made(self, ref: ImageRef, how: str, make: Callable[[Image.Image], Pixels]) -> Pixels:
        """What `make` makes of the picture; a damaged entry is made again.

        Raises:
            DataError: the picture cannot be read, or the cache not be written.
        """
        name = hashlib.sha256(f"{how}|{file_sha256(ref.path, cache_folder())}".encode()).hexdigest()
        path = self.folder / name[:2] / f"{name}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):
            kept: Pixels = np.load(path, allow_pickle=False)
            if kept.dtype == np.uint8:
                return kept
        found = make(self.open(ref))
        if self._has_room(found.nbytes):
            with atomic_file(path) as file:
                np.save(file, found, allow_pickle=False)
        return found

    def _has_room(self, size: int) -> bool:
        if self._until_count == 0:
            self._used = sum(path.stat().st_size for path in self.folder.glob("??/*.npy"))
            self._until_count = _COUNT_AFTER
        self._until_count -= 1
        self._used += size
        return self._used <= self.limit
