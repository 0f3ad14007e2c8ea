"""Cache preprocessed images on disk, so that each image is decoded and resized only once.

The name of an entry is a hash of the image file's content and of the preprocessing, so a changed file or another
preprocessing never gets an old entry. Entries are arrays of pixels; nothing else is ever read from them.
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
from vlbench.data.cache.folder import CannotWrite, atomic_file, cache_folder, file_sha256
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import ImageSource

Pixels: TypeAlias = NDArray[np.uint8]
_TALLY, _UNIT = "tally", 1024
"""The file to which all processes append one byte per KiB of an entry: its growth is the growth of the cache."""


@runtime_checkable
class CachingSource(Protocol):
    """An image source that also caches the results of preprocessing."""

    def preprocess(self, ref: ImageRef, name: str, function: Callable[[Image.Image], Pixels]) -> Pixels:
        """Return `function(image)`; `name` identifies the function with every number that it depends on."""
        ...


def resized(images: ImageSource, ref: ImageRef, size: Callable[[int, int], tuple[int, int]], rule: str) -> Pixels:
    """Return an image [H, W, 3] uint8 in RGB, resized; from the cache if the source has one.

    size: its width and height -> the (W, H) to resize to. rule: the name of a Pillow filter and all numbers that `size`
    depends on, such as `bicubic 384 640 32`. Raises DataError as `open_image` does.
    """
    filter_name = Image.Resampling[rule.split()[0].upper()]

    def resize(image: Image.Image) -> Pixels:
        new_size = size(*image.size)
        return np.asarray(image if new_size == image.size else image.resize(new_size, filter_name))

    if isinstance(images, CachingSource):
        return images.preprocess(ref, f"resized {rule}", resize)
    return resize(images.open(ref))


@dataclass
class ImageCache(ImageFiles):
    """Opens images from their files and caches the results of preprocessing.

    folder: of the cache, which several processes may share. limit: bytes that all entries may take. A process measures
    the entries once; from then on the tally that all processes share says how much was added.
    """

    folder: Path
    limit: int
    _measured: int = field(default=0, init=False)
    _tallied: int = field(default=-1, init=False)

    def preprocess(self, ref: ImageRef, name: str, function: Callable[[Image.Image], Pixels]) -> Pixels:
        """Return `function(image)`, cached under `name` and the content of the file; a damaged entry is replaced.

        Once the cache cannot be written, this process adds nothing more. Raises DataError if the image cannot be read.
        """
        key = hashlib.sha256(f"{name}|{file_sha256(ref.path, cache_folder())}".encode()).hexdigest()
        path = self.folder / key[:2] / f"{key}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):
            cached: Pixels = np.load(path, allow_pickle=False)
            if cached.dtype == np.uint8:
                return cached
        pixels = function(self.open(ref))
        if self._reserve(pixels.nbytes):
            try:
                with atomic_file(path) as file:  # no lock: all processes write the same pixels under the same name
                    np.save(file, pixels, allow_pickle=False)
            except CannotWrite:
                self.limit = 0
        return pixels

    def _reserve(self, size: int) -> bool:
        """Add an entry of `size` bytes to the tally, if the limit and the disk allow it."""
        if size > self.limit:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / _TALLY).open("ab") as tally:
                if not 0 <= self._tallied <= tally.tell():  # never measured, or the folder was emptied
                    self._tallied = tally.tell()
                    self._measured = sum(map(_size, self.folder.glob("??/*.npy")))
                fits = self._measured + (tally.tell() - self._tallied) * _UNIT + size <= self.limit
                if fits:
                    tally.write(b"." * -(-size // _UNIT))
                return fits
        except OSError:
            self.limit = 0
            return False


def _size(path: Path) -> int:
    """The size of a file; 0 if another process has just removed it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
