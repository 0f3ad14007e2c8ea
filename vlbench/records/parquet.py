"""Parquet files of records: written as a whole or not at all, with checksums that are verified when they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vlbench.data.cache.folder import atomic_write
from vlbench.records.seal import check_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_ROWS_PER_BYTE = 8
"""More than the ids of examples, which differ in every row, can be compressed to."""
_TEXT_BYTES = 1 << 30
"""Bytes of text in a column: a few bytes of a file can stand for a long text in every row."""


def write_table(path: Path, table: pa.Table) -> None:
    """Write the table in one step. Raises DataError: it cannot be written (exit 5); an old file stays as it was."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    atomic_write(path, buffer.getvalue())


def read_table(path: Path) -> pa.Table:
    """Read a whole table.

    Raises any error of pyarrow or of the file system: it cannot be read, its content does not fit its checksums, or it
    claims more rows than a file of its size holds, or more text
    than `check_text` accepts.
    Raises DataError: it is not the file that the record beside it was made with.
    """
    import pyarrow.parquet as pq

    content = path.read_bytes()
    check_file(path, content)
    # Without threads: Arrow waits for ever where the system allows no more of them (`ulimit -v`).
    file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True, pre_buffer=False)
    if file.metadata.num_rows > _ROWS_PER_BYTE * len(content):
        rows = f"{file.metadata.num_rows:,} rows in {len(content):,} bytes"
        raise ValueError(f"it claims {rows}, so that most of them are equal")
    check_text(file, io.BytesIO(content))
    return file.read(use_threads=False)


def check_text(file: pq.ParquetFile, source: Path | IO[bytes]) -> None:
    """Check the text that reading the whole file would make; source: the same file, read again where in doubt.

    Raises any error of pyarrow. Raises ValueError: a column makes more than 1 GiB.
    """
    import pyarrow.parquet as pq

    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    doubtful = []
    for place in range(len(file.schema)):
        column, parts = file.schema.column(place), [group.column(place) for group in groups]
        if column.physical_type == "BYTE_ARRAY":
            size = sum(part.total_uncompressed_size for part in parts)
            _check_size(column.path, size)
            if size * sum(part.num_values for part in parts) > _TEXT_BYTES:
                doubtful.append(column.path)
    once = pq.ParquetFile(source, read_dictionary=doubtful, pre_buffer=False)  # each text of a dictionary is held once
    for path in doubtful:
        table = once.read(columns=[path], use_threads=False)
        _check_size(path, sum(map(_text_bytes, table.column(0).chunks)))


def _text_bytes(values: pa.Array) -> int:
    """Bytes of text that an array stands for; it may be lists of text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    while not isinstance(values, pa.DictionaryArray) and values.type.num_fields:
        values = values.flatten()
    if not isinstance(values, pa.DictionaryArray):
        return int(values.nbytes)
    return int(pc.sum(pc.take(pc.binary_length(values.dictionary), values.indices)).as_py() or 0)


def _check_size(column: str, size: int) -> None:
    if size > _TEXT_BYTES:
        raise ValueError(f"its column {column} makes {size:,} bytes of text where at most {_TEXT_BYTES:,} are read")
