"""`vlbench score`: anybody's predictions in the official format, scored by the official rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vlbench.core.domain import known_domain


def score(
    task: Annotated[str, typer.Option(help="Task the predictions are for.")],
    predictions: Annotated[
        Path,
        typer.Option(help="The official file, JSON lines, a run's samples.parquet; of retrieval, scores or lists."),
    ],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data; left out: the built-in world.")] = None,
    tasks_dir: Annotated[Path | None, typer.Option(help="Folder with task folders of your own.")] = None,
    split: Annotated[str | None, typer.Option(help="Split they answer; left out: the task's reported one.")] = None,
    domain: Annotated[str, typer.Option(help="The world's look: plain or textured.")] = "plain",
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Score what is there; noted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Score a file of predictions; pictures and torch are not needed.

    \b
    Examples:
      vlbench score --task nlvr2 --predictions dev.csv --data-root NLVR2 --split dev
      vlbench score --task vqa2 --predictions results.json --data-root VQA --split val --json
      vlbench score --task coco_retrieval --predictions scores.npy --data-root COCO --split test
      vlbench score --task nlvr2 --predictions runs/nlvr2/cvlp-tiny/0123456789abcdef/samples.parquet --json
    """
    from vlbench.cli.progress import open_progress
    from vlbench.engine.score import score_file
    from vlbench.engine.source import load_task
    from vlbench.report.tables.results import score_table

    with open_progress(quiet=as_json) as progress:
        loaded = load_task(
            task,
            data_root,
            domain=known_domain(domain),
            tasks_dir=tasks_dir,
            allow_partial=allow_partial,
            progress=progress,
        )
    report = score_file(loaded, loaded.card.report_split if split is None else split, predictions, allow_partial)
    if as_json:
        typer.echo(json.dumps(report.to_json_object(), ensure_ascii=False))
    else:
        typer.echo(score_table(report.task, report.split, report.results, report.notes, report.coverage, report.source))
