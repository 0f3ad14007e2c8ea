"""Region features on disk: one memory-mapped file, keyed by picture, checked as it is read.

A store is a folder: `regions.bin` holds one record per region, picture after picture; `index.json` says which
records belong to which key, each picture's size and checksum; `store.json` says what the two must be.
"""

from __future__ import annotations

import hashlib
import os
import secrets
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
from vlbench.data.regions.records import FORMAT, Header, Index, RecordWriter, record_type
from vlbench.data.regions.tsv import read_tsv
from vlbench.data.regions.types import Regions


@dataclass(frozen=True)
class _Place:
    """Where a picture's records are, and what is known about it."""

    start: int
    count: int
    width: int
    height: int
    checksum: int


class FeatureStore:
    """Regions by picture key; opened without reading them, and safe to share between processes."""

    def __init__(self, folder: Path) -> None:
        """Open the store in `folder`. Raises DataError if it is absent, corrupt or truncated."""
        self.folder = folder
        try:
            self._header = Header.model_validate_json((folder / "store.json").read_bytes())
            index = (folder / "index.json").read_bytes()
            size = (folder / "regions.bin").stat().st_size
        except (OSError, ValueError) as error:
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
        # A worker opens the store again: pickling would copy what is mapped.
        return FeatureStore, (self.folder,)

    @property
    def dim(self) -> int:
        """Numbers per region."""
        return self._header.dim

    @property
    def source(self) -> str:
        """What the store was made from."""
        return self._header.source

    @property
    def sha256(self) -> str:
        """The hash of all regions, keys and sizes, in their order."""
        return hashlib.sha256((self._header.sha256 + self._header.index_sha256).encode()).hexdigest()

    def __len__(self) -> int:
        return self._header.pictures

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def get(self, key: str) -> Regions:
        """The regions of a picture, as arrays of their own. Raises DataError for an unknown key or damaged bytes."""
        place = self._places.get(key)
        if place is None:
            raise DataError(f"no regions of {key!r} in {self.folder}: extract them with `vlbench data features`")
        records = self._records[place.start : place.start + place.count]
        if zlib.crc32(records.tobytes()) != place.checksum:
            raise self._fault(f"has damaged regions of {key!r}")
        return Regions(
            width=place.width,
            height=place.height,
            boxes=records["box"].astype(np.float32),
            features=records["feature"].astype(np.float32),
            object_ids=records["object"].astype(np.int64),
            object_confidences=records["object_confidence"].astype(np.float32),
            attribute_ids=records["attribute"].astype(np.int64),
            attribute_confidences=records["attribute_confidence"].astype(np.float32),
        )

    @cached_property
    def _places(self) -> dict[str, _Place]:
        index = Index.model_validate_json(self._raw_index)
        starts = [0, *np.cumsum(index.counts).tolist()]
        rows = zip(index.keys, starts, index.counts, index.sizes, index.checksums, strict=False)
        return {key: _Place(start, count, *size, checksum) for key, start, count, size, checksum in rows}

    @cached_property
    def _records(self) -> NDArray[np.void]:
        try:
            return np.memmap(self.folder / "regions.bin", dtype=record_type(self.dim), mode="r")
        except (OSError, ValueError) as error:
            raise self._fault(f"cannot be opened ({_short(error)})") from None

    def _fault(self, what: str) -> DataError:
        return DataError(f"the feature store {self.folder} {what}: remove the folder and it is made again")

    @classmethod
    def build(cls, folder: Path, rows: Iterable[tuple[str, Regions]], source: str) -> FeatureStore:
        """Write a store, one picture in memory at a time; an older one in its place is replaced at the end.

        Args:
            folder: where the store shall be.
            rows: key and regions of each picture.
            source: what they come from, kept with the store.

        Raises:
            DataError: no rows, a key twice, regions that do not fit together, or a place that cannot be written;
                nothing half-written is left.
        """
        beside = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            beside.mkdir(parents=True)
            with (beside / "regions.bin").open("xb") as file:
                writer = RecordWriter(file, source)
                for key, regions in rows:
                    writer.add(key, regions)
                header, index = writer.finish()
                _sync(file)
            for name, content in (("index.json", index), ("store.json", header.model_dump_json().encode())):
                with (beside / name).open("xb") as file:
                    file.write(content)
                    _sync(file)
            _move(beside, folder)
        except OSError as error:
            raise cannot_write(folder, error) from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return cls(folder)


def store_for_tsv(tsv: Path, cache: Path, progress: Callable[[int, int], None] | None = None) -> FeatureStore:
    """The store of a TSV file, converted once and kept in the cache under the hash of the file's content.

    Args:
        tsv: in LXMERT's format.
        cache: the cache folder.
        progress: told bytes done and bytes to do while converting.

    Raises:
        DataError: a malformed line (file and line named), or a damaged store.
    """
    folder = cache / "regions" / f"tsv-{FORMAT}-{file_sha256(tsv, cache)[:32]}"
    if folder.exists():
        return FeatureStore(folder)
    return FeatureStore.build(folder, read_tsv(tsv, progress), source=tsv.name)


def _move(beside: Path, folder: Path) -> None:
    """Put a finished folder in its place; who has the older one open keeps reading it."""
    if folder.exists():
        aside = beside.with_name(f"{beside.name}.old")
        folder.rename(aside)
        beside.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
        return
    try:
        beside.rename(folder)
    except OSError:
        # Another process may have been quicker; what it made from the same rows is as good.
        if not folder.exists():
            raise


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _short(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
