"""The file format of a feature store: one binary record per region, an index and a header."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError
from vlbench.core.validate import Frozen
from vlbench.data.regions.types import Regions

FORMAT = 1


class Header(Frozen):
    """The content of `store.json`. pictures: the number of images."""

    format: int
    source: str
    dim: int
    pictures: int
    regions: int
    sha256: str
    index_sha256: str


class Index(Frozen):
    """The content of `index.json`, with one list entry per image.

    counts: of regions. sizes: width and height. checksums: CRC-32 of the records.
    """

    keys: list[str]
    counts: list[int]
    sizes: list[tuple[int, int]]
    checksums: list[int]


def record_type(dim: int) -> np.dtype[np.void]:
    """Return the record of one region in `regions.bin`: little-endian, packed, with `dim` features."""
    labels = [("object", "<i8"), ("object_confidence", "<f4"), ("attribute", "<i8"), ("attribute_confidence", "<f4")]
    return np.dtype([("box", "<f4", (4,)), *labels, ("feature", "<f4", (dim,))])


class RecordWriter:
    """Writes records to an open file, with one image in memory at a time, and collects the index."""

    def __init__(self, file: BinaryIO, source: str) -> None:
        self._file, self._source = file, source
        self._digest = hashlib.sha256()
        self._dim = 0
        self._counts: dict[str, int] = {}
        self._sizes: list[tuple[int, int]] = []
        self._checksums: list[int] = []

    def add(self, key: str, regions: Regions) -> None:
        """Append the regions of an image. Raises DataError for a repeated key or arrays whose shapes do not match."""
        if key in self._counts:
            raise DataError(f"the key {key!r} comes twice in {self._source}: remove one of the two")
        self._dim = self._dim or int(regions.features.shape[-1])
        records = _packed(key, regions, self._dim).view(np.uint8).data
        self._file.write(records)
        self._digest.update(records)
        self._counts[key] = len(regions.boxes)
        self._sizes.append((regions.width, regions.height))
        self._checksums.append(zlib.crc32(records))

    def finish(self) -> tuple[Header, bytes]:
        """Return the header, and the index as JSON. Raises DataError if nothing was written."""
        if not self._counts:
            raise DataError(f"{self._source} holds no region features: expected at least one image")
        fields = {"keys": list(self._counts), "counts": list(self._counts.values())}
        index = json.dumps(fields | {"sizes": self._sizes, "checksums": self._checksums}).encode()
        header = Header(
            format=FORMAT,
            source=self._source,
            dim=self._dim,
            pictures=len(self._counts),
            regions=sum(self._counts.values()),
            sha256=self._digest.hexdigest(),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        return header, index


def _packed(key: str, regions: Regions, dim: int) -> NDArray[np.void]:
    """The records of an image: [N], of the type `record_type(dim)`."""
    count = len(regions.boxes)
    values: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        "box": regions.boxes,
        "object": regions.object_ids,
        "object_confidence": regions.object_confidences,
        "attribute": regions.attribute_ids,
        "attribute_confidence": regions.attribute_confidences,
        "feature": regions.features,
    }
    records = np.empty(count, dtype=record_type(dim))
    for name, array in values.items():
        expected = records[name].shape
        if array.shape != expected or not count:
            raise DataError(
                f"the regions of {key!r} have {name} of shape {array.shape} where {expected} with at least one region "
                f"is expected: extract them again with one extractor"
            )
        records[name] = array
    return records
