"""`ranks.parquet`: one row per query of a retrieval run, in both directions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from vlbench.core.results import Ranking
from vlbench.data.cache import atomic_write


def write_ranks(path: Path, rankings: Sequence[Ranking]) -> None:
    """Write the rankings in one step: query_id, direction, rank_low, rank_high, positives, top ids and scores.

    Raises:
        VlbenchError: the file cannot be written (exit 5); an old one stays as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "query_id": pa.array([item.query_id for item in rankings], pa.string()),
        "direction": pa.array([item.direction for item in rankings], pa.string()),
        "rank_low": pa.array([item.rank_low for item in rankings], pa.int64()),
        "rank_high": pa.array([item.rank_high for item in rankings], pa.int64()),
        "positives": pa.array([item.positives for item in rankings], pa.int64()),
        "top_ids": pa.array([[name for name, _ in item.top] for item in rankings], pa.list_(pa.string())),
        "top_scores": pa.array([[score for _, score in item.top] for item in rankings], pa.list_(pa.float64())),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd", write_page_checksum=True)
    atomic_write(path, buffer.getvalue())
