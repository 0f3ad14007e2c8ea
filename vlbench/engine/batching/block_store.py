"""Arrays that any number of ranks compute block by block, each block kept as it comes.

Each block on disk is a file of its own, written whole or not at all: a killed run loses only the blocks in progress,
and machines that share a disk never write to the same file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError, is_out_of_memory
from vlbench.data.cache.folder import atomic_file, atomic_write, cannot_write
from vlbench.engine.runtime.ranks import Ranks
from vlbench.engine.training.atomic_folder import flush

Array: TypeAlias = NDArray[np.float32]
MakeBlocks: TypeAlias = Callable[[Sequence[int]], Iterator[Array]]
"""Computes the blocks with these numbers, one after the other."""

_KEY = "key"


class BlockStore:
    """Arrays by name, of one folder or, without a folder, in memory only.

    key: a hash of all that the arrays depend on; a folder with another key is emptied.
    """

    def __init__(self, ranks: Ranks, folder: Path | None = None, key: str = "") -> None:
        self.ranks, self.folder = ranks, folder
        if folder is not None:
            if ranks.is_main:
                _claim(folder, key)
            ranks.barrier()

    def fill(self, name: str, sizes: Sequence[int], make: MakeBlocks) -> Array:
        """The array [N, ...] on all ranks, whose blocks have these numbers of rows; `make` computes the missing blocks.

        Raises:
            DataError: a block cannot be written, or is missing in the end, because ranks use different disks.
        """
        if self.folder is None:
            numbers = self.ranks.mine(range(len(sizes)))
            own = dict(zip(numbers, make(numbers), strict=True)) if numbers else {}
            blocks = {number: block for part in self.ranks.gather_objects(own) for number, block in part.items()}
            return np.concatenate([blocks[number] for number in range(len(sizes))])
        whole = self.folder / f"{name}.npy"
        if not _is_intact(whole, sum(sizes)):
            parts = [self.folder / f"{name}-{number:06d}.npy" for number in range(len(sizes))]
            self._write_missing(parts, sizes, make)
            if self.ranks.is_main:
                _join_blocks(whole, parts, sum(sizes))
        if self.ranks.is_main:
            for block in self.folder.glob(f"{name}-??????.npy"):  # also those of a process that was killed here
                block.unlink()
        self.ranks.barrier()
        joined: Array = np.load(whole, mmap_mode="r", allow_pickle=False)
        return joined

    def _write_missing(self, parts: Sequence[Path], sizes: Sequence[int], make: MakeBlocks) -> None:
        """Write this rank's share of the missing blocks; all ranks list them before one of them writes."""
        missing = [number for number, rows in enumerate(sizes) if not _is_intact(parts[number], rows)]
        self.ranks.barrier()
        numbers = self.ranks.mine(missing)
        for number, block in zip(numbers, make(numbers) if numbers else (), strict=True):
            with atomic_file(parts[number]) as file:
                np.save(file, block, allow_pickle=False)
        self.ranks.barrier()


def _claim(folder: Path, key: str) -> None:
    """Empty the folder unless it has this key, and write the key."""
    try:
        if folder.exists() and (not (folder / _KEY).is_file() or (folder / _KEY).read_text("utf8") != key):
            shutil.rmtree(folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    atomic_write(folder / _KEY, key)


def _is_intact(path: Path, rows: int) -> bool:
    """Whether the file holds a block of so many rows."""
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False)) == rows
    except Exception as error:  # damaged bytes raise any type of error
        if is_out_of_memory(error):
            raise
        return False


def _join_blocks(whole: Path, parts: Sequence[Path], rows: int) -> None:
    """Join all blocks to one file; never more than one of them is in memory."""
    temporary = whole.with_name(f".{whole.name}")
    try:
        first: Array = np.load(parts[0], mmap_mode="r", allow_pickle=False)
        joined = np.lib.format.open_memmap(temporary, "w+", first.dtype, (rows, *first.shape[1:]))
        row = 0
        for part in parts:
            block: Array = np.load(part, allow_pickle=False)
            joined[row : row + len(block)] = block
            row += len(block)
        joined.flush()
        flush(temporary)  # before the rename, which may reach the disk before the content
        temporary.replace(whole)
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename} was made by another process and is not here: give an --output-path on a disk that all "
            f"machines share"
        ) from None
    except OSError as error:
        raise cannot_write(whole, error) from None
