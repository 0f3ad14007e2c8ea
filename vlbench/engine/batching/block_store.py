"""Arrays that are made block by block, by any number of ranks, and kept as they come.

Each block on disk is a file of its own, written whole or not at all, so a run that is killed anywhere loses no more
than the blocks at hand, and machines that share a disk never write to the same file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError
from vlbench.data.cache.folder import atomic_file, atomic_write, cannot_write
from vlbench.engine.runtime.ranks import Ranks

Array: TypeAlias = NDArray[np.float32]
Make: TypeAlias = Callable[[Sequence[int]], Iterator[Array]]
"""From the numbers of blocks to these blocks, one after the other."""

_KEY = "key"


class Shelf:
    """Arrays by name. folder: where they are kept; None keeps them in memory, as long as somebody needs them.

    key: names all that the arrays depend on. What lies in the folder under another key is thrown away.
    """

    def __init__(self, ranks: Ranks, folder: Path | None = None, key: str = "") -> None:
        self.ranks, self.folder = ranks, folder
        if folder is not None:
            if ranks.is_main:
                _claim(folder, key)
            ranks.barrier()

    def fill(self, name: str, sizes: Sequence[int], make: Make) -> Array:
        """The array whose blocks have so many rows each: `make` is asked for those that are not there yet.

        Blocks are handed to ranks whole, and the array is there on all ranks.

        Raises:
            DataError: a block cannot be written, or is missing in the end, because ranks see different disks.
        """
        if self.folder is None:
            numbers = self.ranks.mine(range(len(sizes)))
            own = dict(zip(numbers, make(numbers), strict=True)) if numbers else {}
            made = {number: block for part in self.ranks.gather_objects(own) for number, block in part.items()}
            return np.concatenate([made[number] for number in range(len(sizes))])
        whole = self.folder / f"{name}.npy"
        if not _intact(whole, sum(sizes)):
            parts = [self.folder / f"{name}-{number:06d}.npy" for number in range(len(sizes))]
            self._write(parts, sizes, make)
            if self.ranks.is_main:
                _join(whole, parts, sum(sizes))
        self.ranks.barrier()
        joined: Array = np.load(whole, mmap_mode="r", allow_pickle=False)
        return joined

    def _write(self, parts: Sequence[Path], sizes: Sequence[int], make: Make) -> None:
        """Write this rank's share of the blocks that are missing; all ranks look before one of them writes."""
        missing = [number for number, rows in enumerate(sizes) if not _intact(parts[number], rows)]
        self.ranks.barrier()
        numbers = self.ranks.mine(missing)
        for number, block in zip(numbers, make(numbers) if numbers else (), strict=True):
            with atomic_file(parts[number]) as file:
                np.save(file, block, allow_pickle=False)
        self.ranks.barrier()


def _claim(folder: Path, key: str) -> None:
    try:
        if folder.exists() and (not (folder / _KEY).is_file() or (folder / _KEY).read_text("utf8") != key):
            shutil.rmtree(folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    atomic_write(folder / _KEY, key)


def _intact(path: Path, rows: int) -> bool:
    """Whether a block of so many rows lies there; a damaged one is made again."""
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False)) == rows
    except (OSError, ValueError, TypeError):
        return False


def _join(whole: Path, parts: Sequence[Path], rows: int) -> None:
    """One file of all blocks, which are then removed; never more than one of them in memory."""
    beside = whole.with_name(f".{whole.name}")
    try:
        first: Array = np.load(parts[0], mmap_mode="r", allow_pickle=False)
        joined = np.lib.format.open_memmap(beside, "w+", first.dtype, (rows, *first.shape[1:]))
        row = 0
        for part in parts:
            block: Array = np.load(part, allow_pickle=False)
            joined[row : row + len(block)] = block
            row += len(block)
        joined.flush()
        beside.replace(whole)
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename} was made by another process and is not here: give an --output-path on a disk that all "
            f"machines share"
        ) from None
    except OSError as error:
        raise cannot_write(whole, error) from None
    for part in parts:
        part.unlink()
