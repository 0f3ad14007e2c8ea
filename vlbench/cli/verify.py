"""`vlbench verify`: check that records are as their runs wrote them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vlbench.cli.options import AsJson, TasksDir
from vlbench.core.errors import ExitCode, printable


def verify(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs in or below, or run.json files.")],
    tasks_dir: TasksDir = None,
    as_json: AsJson = False,
) -> None:
    """Check the seals of records and recompute their scores from their samples; exit code 5 if one is broken.

    A seal is a hash over a finished record and the files beside it. It detects edits and damage, not forgery: whoever
    edits a record can also seal it again. Recomputed scores are those of the samples, whoever made these. Nothing is
    written, no data is needed, and of your own tasks only those in --tasks-dir are loaded.

    \b
    Per record:
      recomputed  its samples give its scores again, with intervals, slices and controls
      sealed      no samples beside it, or no scores to be had from them: only seal and hashes are checked
      unsealed    it has no seal (made by an older vlbench, or removed)
      unfinished  its run has not ended
      broken      edited or damaged

    \b
    Examples:
      vlbench verify runs
      vlbench verify leaderboards/world/records --json
    """
    from vlbench import catalog
    from vlbench.engine.verify import verify_file
    from vlbench.records.collect import record_files

    catalog.task_folders(tasks_dir)  # reject a wrong folder before records are read
    checked = [asdict(verify_file(file, tasks_dir)) for file in record_files(runs)]
    counts = Counter(entry["state"] for entry in checked)
    if as_json:
        typer.echo(json.dumps({"records": checked, "counts": counts}, ensure_ascii=False))
    else:
        for entry in checked:
            why = f": {entry['why']}" if entry["why"] else ""
            typer.echo(printable(f"{entry['state']} {entry['path']}{why}"))
        typer.echo(f"{len(checked)} records: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}")
    if counts["broken"]:
        raise typer.Exit(int(ExitCode.DATA))
