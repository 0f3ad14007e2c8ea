"""Parquet files of records: written as a whole or not at all, with checksums that are verified when they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from vlbench.data.cache.folder import atomic_write
from vlbench.records.seal import check_file

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_BYTE = 8
"""More than the ids of examples, which differ in every row, can be compressed to."""


def write_table(path: Path, table: pa.Table) -> None:
    """Write the table in one step. Raises DataError: it cannot be written (exit 5); an old file stays as it was."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    atomic_write(path, buffer.getvalue())


def read_table(path: Path) -> pa.Table:
    """Read a whole table.

    Raises any error of pyarrow or of the file system: it cannot be read, its content does not fit its checksums, or it
    claims more rows than a file of its size holds.
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
    return file.read(use_threads=False)
