"""`vlbench compare`: whether runs differ, by how much, and on which examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two runs or more: folders, or their run.json.")],
    metric: Annotated[str, typer.Option(help="Metric; left out: the main metric of the task.")] = "",
    by: Annotated[str, typer.Option(help="Tag to break the metric down by, e.g. answer_type.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Compare runs, paired by example, seeds pooled: runs that differ only in their seed are one system.

    \b
    Examples:
      vlbench compare runs/nlvr2/cvlp-tiny/0123456789abcdef runs/nlvr2/vilt-tiny/fedcba9876543210
      vlbench compare runs/vqa2/cvlp-tiny/* runs/vqa2/vilt-tiny/* --by answer_type --json
    """
    from vlbench.report.compare.comparison import compare_runs
    from vlbench.report.compare.text import comparison_json, comparison_text

    comparison = compare_runs(runs, metric, by)
    typer.echo(json.dumps(comparison_json(comparison), ensure_ascii=False) if as_json else comparison_text(comparison))
