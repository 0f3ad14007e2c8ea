"""Read and write region features in LXMERT's format: one image per line, arrays in base64, any number of boxes.

Source: the `tsv` files of Tan and Bansal 2019 (LXMERT), as the bottom-up-attention extractor wrote them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError
from vlbench.data.cache.folder import atomic_file
from vlbench.data.json.lines import bounded_lines
from vlbench.data.regions.types import Regions

FIELDS = (
    "img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf", "num_boxes", "boxes", "features"
)  # fmt: skip
_PROGRESS_BYTES = 1 << 20
"""Bytes between two progress reports."""
_BUFFER = 1 << 20
"""Bytes that are read together: about two lines."""


def read_tsv(path: Path, progress: Callable[[int, int], None] | None = None) -> Iterator[tuple[str, Regions]]:
    """Yield the key and regions of each line, with one line in memory at a time.

    Every line must have as many features per region as the first one. progress: called with the bytes read and all
    bytes. Raises DataError if the file cannot be read, or a line is not of the format; it names the file and the line.
    """
    done = reported = 0
    dim: int | None = None
    try:
        total = path.stat().st_size
        with path.open("rb", buffering=_BUFFER) as lines:
            for number, line in bounded_lines(path, lines):
                done += len(line)
                if line.strip():
                    key, regions = _Row(path, number, line).parse(dim)
                    dim = regions.features.shape[1]
                    yield key, regions
                if progress and (done - reported >= _PROGRESS_BYTES or done == total):
                    reported = done
                    progress(done, total)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): give a readable TSV of region features") from None


def write_tsv(path: Path, rows: Iterable[tuple[str, Regions]]) -> None:
    """Write the regions of each image, with one image in memory at a time, to a file that appears when it is complete.

    Raises DataError if a key contains tabs or line ends, or the file cannot be written.
    """
    with atomic_file(path) as file:
        for key, regions in rows:
            if not key or any(character in key for character in "\t\r\n"):
                raise DataError(
                    f"the image key {key!r} cannot be written to a TSV: give one without tabs and line ends"
                )
            file.write(_line(key, regions))


def _line(key: str, regions: Regions) -> bytes:
    values = [
        key.encode(),
        b"%d" % regions.height,
        b"%d" % regions.width,
        _encoded(regions.object_ids, "<i8"),
        _encoded(regions.object_confidences, "<f4"),
        _encoded(regions.attribute_ids, "<i8"),
        _encoded(regions.attribute_confidences, "<f4"),
        b"%d" % len(regions.boxes),
        _encoded(regions.boxes, "<f4"),
        _encoded(regions.features, "<f4"),
    ]
    return b"\t".join(values) + b"\n"


def _encoded(values: NDArray[np.int64] | NDArray[np.float32], dtype: str) -> bytes:
    return base64.b64encode(values.astype(dtype).tobytes())


class _Row:
    """The fields of one line. where: names the file and the line in errors."""

    def __init__(self, path: Path, number: int, line: bytes) -> None:
        self.where = f"{path}, line {number}"
        tab, end = line.rfind(b"\t"), len(line) - len(line[-2:]) + len(line[-2:].rstrip(b"\r\n"))
        others = line[:tab].split(b"\t") if tab >= 0 else []
        # The last field is nearly all of the line, and is not copied.
        values = [*(memoryview(value) for value in others), memoryview(line)[tab + 1 : end]]
        if len(values) != len(FIELDS):
            raise self.fault(f"{len(values)} fields separated by tabs where {len(FIELDS)} are expected")
        self.values = dict(zip(FIELDS, values, strict=True))

    def fault(self, what: str) -> DataError:
        return DataError(f"{self.where}: {what}: fetch or extract the features again")

    def parse(self, dim: int | None) -> tuple[str, Regions]:
        """Return the key and the regions. dim: features per region of the lines before, None on the first."""
        count = self.integer("num_boxes")
        regions = Regions(
            width=self.integer("img_w"),
            height=self.integer("img_h"),
            boxes=self.floats("boxes", (count, 4)),
            features=self.floats("features", (count, dim or self.width_of("features", count))),
            object_ids=self.ids("objects_id", count),
            object_confidences=self.floats("objects_conf", (count,)),
            attribute_ids=self.ids("attrs_id", count),
            attribute_confidences=self.floats("attrs_conf", (count,)),
        )
        return self.key(), regions

    def key(self) -> str:
        try:
            key = str(self.values["img_id"], "utf8").strip()
        except UnicodeDecodeError:
            raise self.fault(f"img_id is {self.start('img_id')} where UTF-8 is expected") from None
        if not key:
            raise self.fault("img_id is empty")
        return key

    def integer(self, field: str) -> int:
        try:
            value = int(bytes(self.values[field]))
        except ValueError:
            raise self.fault(f"{field} is {self.start(field)} where a whole number is expected") from None
        if value < 1:
            raise self.fault(f"{field} is {value} where at least 1 is expected")
        return value

    def start(self, field: str) -> str:
        """The first bytes of a field, for messages."""
        return repr(bytes(self.values[field][:40]))

    def width_of(self, field: str, count: int) -> int:
        """Features per region; `floats` checks whether the division has a remainder."""
        return max(1, len(self.decoded(field)) // (4 * count))

    def floats(self, field: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        values = self.array(field, shape, np.dtype("<f4")).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise self.fault(f"{field} contains numbers that are not finite")
        return values

    def ids(self, field: str, count: int) -> NDArray[np.int64]:
        return self.array(field, (count,), np.dtype("<i8")).astype(np.int64)

    def array(self, field: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        content = self.decoded(field)
        expected = int(np.prod(shape)) * dtype.itemsize
        if len(content) != expected:
            numbers = " x ".join(str(side) for side in shape)
            raise self.fault(
                f"{field} holds {len(content):,} bytes where {expected:,} are expected ({numbers} numbers)"
            )
        return np.frombuffer(content, dtype).reshape(shape)

    def decoded(self, field: str) -> bytes:
        """Decode a base64 field, whose padding may be missing."""
        with contextlib.suppress(binascii.Error):
            return binascii.a2b_base64(self.values[field], strict_mode=True)
        text = bytes(self.values[field]).strip().rstrip(b"=")
        try:
            return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except binascii.Error as error:
            raise self.fault(f"{field} is not base64 ({error})") from None
