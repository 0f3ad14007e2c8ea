"""`vlbench export`: records for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders that hold some.")],
    to: Annotated[str, typer.Option(help="lm-eval, hf-model-index or csv.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; left out: stdout.")] = None,
) -> None:
    """Write finished runs in another tool's format.

    \b
    Examples:
      vlbench export runs --to csv -o runs.csv
      vlbench export RUN --to hf-model-index
    """
    from vlbench.core.errors import VlbenchError
    from vlbench.data.cache import atomic_write
    from vlbench.records.folder import find_runs, read_run
    from vlbench.report.export import export as exported

    folders = [folder for path in runs for folder in (find_runs(path) if path.is_dir() else [path])]
    if not folders:
        raise VlbenchError(f"{', '.join(map(str, runs))} holds no run: give folders that `vlbench run` wrote")
    text = exported([read_run(folder) for folder in folders], to)
    if output is None:
        typer.echo(text, nl=False)
    else:
        atomic_write(output, text)
