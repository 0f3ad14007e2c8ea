"""Parquet files of records: written as a whole or not at all, with checksums that are verified when they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vlbench.data.cache.folder import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_ROWS_PER_BYTE = 8
"""More than the ids of examples, which differ in every row, can be compressed to."""


def write_table(path: Path, table: pa.Table) -> None:
    """Write the table in one step. Raises DataError: it cannot be written (exit 5); an old file stays as it was."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    atomic_write(path, buffer.getvalue())


def read_table(path: Path) -> pa.Table:
    """Read a whole table. Raises any error of pyarrow or of the file system: it cannot be read, its content does not
    fit its checksums, or it claims more rows than a file of its size holds.
    """
    return open_parquet(io.BytesIO(path.read_bytes()), page_checksum_verification=True).read()


def open_parquet(file: Path | BinaryIO, page_checksum_verification: bool = False) -> pq.ParquetFile:
    """Open a table of records; no row is read. Raises as `read_table` does."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file, page_checksum_verification=page_checksum_verification)
    rows, size = table.metadata.num_rows, file.stat().st_size if isinstance(file, Path) else file.seek(0, io.SEEK_END)
    if rows > _ROWS_PER_BYTE * size:
        raise ValueError(f"it claims {rows:,} rows in {size:,} bytes, so that most of them are equal")
    return table
