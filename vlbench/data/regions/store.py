"""Region features on disk: one memory-mapped file, keyed by image and verified as it is read.

A store is a folder: `regions.bin` has one record per region, image after image; `index.json` has the key, size,
number of regions and checksum of each image; `store.json` has the number of regions and the hashes of both files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError
from vlbench.data.cache.folder import cannot_write, file_sha256
from vlbench.data.cache.lock import only_writer
from vlbench.data.cache.temporary import temporary_path
from vlbench.data.regions.records import FORMAT, Header, Index, RecordWriter, record_type
from vlbench.data.regions.tsv import read_tsv
from vlbench.data.regions.types import Regions


@dataclass(frozen=True)
class _Entry:
    """An image of the store: the position and number of its records, its size and the checksum of its records."""

    start: int
    count: int
    width: int
    height: int
    checksum: int


class FeatureStore:
    """The regions of images by their keys. Opening reads no regions, and processes may share a store.

    Raises DataError if the folder holds no store, or a corrupt or truncated one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._header = Header.model_validate_json((folder / "store.json").read_bytes())
            index = (folder / "index.json").read_bytes()
            size = (folder / "regions.bin").stat().st_size
        except Exception as error:  # damaged bytes raise any type of error
            raise self._fault(f"cannot be opened ({_short(error)})") from None
        if self._header.format != FORMAT:
            raise self._fault(f"has format {self._header.format} where {FORMAT} is expected")
        if hashlib.sha256(index).hexdigest() != self._header.index_sha256:
            raise self._fault("has an index that is not the one written")
        expected = self._header.regions * record_type(self.dim).itemsize
        if size != expected:
            raise self._fault(f"holds {size:,} bytes of regions where {expected:,} are expected")
        self._raw_index = index

    def __reduce__(self) -> tuple[type[FeatureStore], tuple[Path]]:
        # A worker opens the store again: pickling would copy the mapped memory.
        return FeatureStore, (self.folder,)

    @property
    def dim(self) -> int:
        """Features per region."""
        return self._header.dim

    @property
    def sha256(self) -> str:
        """The hash of all regions, keys and sizes, in order."""
        return hashlib.sha256((self._header.sha256 + self._header.index_sha256).encode()).hexdigest()

    def __len__(self) -> int:
        return self._header.pictures

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def get(self, key: str) -> Regions:
        """Return the regions of an image, as new arrays. Raises DataError for an unknown key or damaged bytes."""
        entry = self._entries.get(key)
        if entry is None:
            raise DataError(f"no regions of {key!r} in {self.folder}: extract them with `vlbench data features`")
        records = self._records[entry.start : entry.start + entry.count]
        if zlib.crc32(records.tobytes()) != entry.checksum:
            raise self._fault(f"has damaged regions of {key!r}")
        return Regions(
            width=entry.width,
            height=entry.height,
            boxes=records["box"].astype(np.float32),
            features=records["feature"].astype(np.float32),
            object_ids=records["object"].astype(np.int64),
            object_confidences=records["object_confidence"].astype(np.float32),
            attribute_ids=records["attribute"].astype(np.int64),
            attribute_confidences=records["attribute_confidence"].astype(np.float32),
        )

    @cached_property
    def _entries(self) -> dict[str, _Entry]:
        index = Index.model_validate_json(self._raw_index)
        starts = [0, *np.cumsum(index.counts).tolist()]
        rows = zip(index.keys, starts, index.counts, index.sizes, index.checksums, strict=False)
        return {key: _Entry(start, count, *size, checksum) for key, start, count, size, checksum in rows}

    @cached_property
    def _records(self) -> NDArray[np.void]:
        try:
            return np.memmap(self.folder / "regions.bin", dtype=record_type(self.dim), mode="r")
        except Exception as error:  # damaged bytes raise any type of error
            raise self._fault(f"cannot be opened ({_short(error)})") from None

    def _fault(self, what: str) -> DataError:
        return DataError(f"the feature store {self.folder} {what}: remove the folder, and it is rebuilt")

    @classmethod
    def build(cls, folder: Path, rows: Iterable[tuple[str, Regions]], source: str) -> FeatureStore:
        """Write a store, with one image in memory at a time; an older store at the path is replaced at the end.

        rows: key and regions of each image. source: what they come from. Raises DataError if there are no rows, a key
        occurs twice, shapes do not match, or the folder cannot be written; no partial store is left.
        """
        temporary = temporary_path(folder)
        try:
            temporary.mkdir(parents=True)
            with (temporary / "regions.bin").open("xb") as file:
                writer = RecordWriter(file, source)
                for key, regions in rows:
                    writer.add(key, regions)
                header, index = writer.finish()
                _sync(file)
            for name, content in (("index.json", index), ("store.json", header.model_dump_json().encode())):
                with (temporary / name).open("xb") as file:
                    file.write(content)
                    _sync(file)
            _move(temporary, folder)
        except OSError as error:
            raise cannot_write(folder, error) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls(folder)


def store_for_tsv(
    tsv: Path,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[], None] | None = None,
) -> FeatureStore:
    """Return the store of a TSV file; it is converted once and cached under the hash of the file's content.

    progress: called with the bytes read and all bytes while converting. on_wait: called once if another process
    converts the file. Raises DataError as `read_tsv` does, if the store is damaged, or the cache cannot be written.
    """
    folder = cache / "regions" / f"tsv-{FORMAT}-{file_sha256(tsv, cache)[:32]}"
    return cached_store(folder, lambda: read_tsv(tsv, progress), tsv.name, on_wait)


def cached_store(
    folder: Path,
    rows: Callable[[], Iterable[tuple[str, Regions]]],
    source: str,
    on_wait: Callable[[], None] | None = None,
) -> FeatureStore:
    """Open the store at `CACHE/regions/NAME`; if there is none, one process builds it from `rows()` and others wait.

    on_wait: called once if this process waits. Raises DataError as `FeatureStore` and `build` do.
    """
    if not os.access(folder, os.R_OK):
        with only_writer(folder.parents[1] / "locks" / folder.name, on_wait):
            if not folder.exists():
                return FeatureStore.build(folder, rows(), source)
    return FeatureStore(folder)


def _move(temporary: Path, folder: Path) -> None:
    """Rename a complete folder to its final path; processes that have an older one open can still read it."""
    if folder.exists():
        older = temporary_path(folder)
        folder.rename(older)
        temporary.rename(folder)
        shutil.rmtree(older, ignore_errors=True)
        return
    try:
        temporary.rename(folder)
    except OSError:
        # Another process may have finished first; its store of the same rows is equally good.
        if not folder.exists():
            raise


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _short(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
