"""`vlbench export`: records in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs in or below, or records (*.json).")],
    to: Annotated[str, typer.Option(help="lm-eval, hf-model-index or csv.")],
    source_url: Annotated[str, typer.Option(help="URL of the runs; hf-model-index gives it as their source.")] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; left out: stdout.")] = None,
) -> None:
    """Write finished runs in another tool's format; copies of a run count once.

    \b
    Examples:
      vlbench export runs --to csv -o runs.csv
      vlbench export RUN --to hf-model-index --source-url https://example.org/runs
    """
    from vlbench.core.errors import DataError
    from vlbench.data.cache.folder import atomic_write
    from vlbench.records.collect import collect
    from vlbench.report.export import export as exported
    from vlbench.report.tables.protocol import newest

    collected = collect(runs)
    if collected.faults:
        raise DataError(collected.faults[0])
    text = exported([run.record for run in newest(collected.runs)], to, source_url)
    if output is None:
        typer.echo(text, nl=False)
    else:
        atomic_write(output, text)
