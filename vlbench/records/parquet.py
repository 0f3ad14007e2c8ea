"""Parquet files of records: written as a whole or not at all, with checksums that are verified when they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from vlbench.data.cache.folder import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa


def write_table(path: Path, table: pa.Table) -> None:
    """Write the table in one step. Raises DataError: it cannot be written (exit 5); an old file stays as it was."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    atomic_write(path, buffer.getvalue())


def read_table(path: Path) -> pa.Table:
    """Read a whole table. Raises OSError, ValueError, pyarrow.ArrowException: it cannot be read, or its content does
    not fit its checksums.
    """
    import pyarrow.parquet as pq

    # Without threads: Arrow waits for ever where the system allows no more of them (`ulimit -v`).
    file = pq.ParquetFile(io.BytesIO(path.read_bytes()), page_checksum_verification=True, pre_buffer=False)
    return file.read(use_threads=False)
