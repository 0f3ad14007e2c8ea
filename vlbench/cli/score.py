"""`vlbench score`: score an existing prediction file by the official rule (PyTorch not needed)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vlbench.cli.options import AsJson, DataRoot, TasksDir
from vlbench.core.domain import known_domain


def score(
    task: Annotated[str, typer.Option(help="Task of the predictions.")],
    predictions: Annotated[
        Path,
        typer.Option(
            help="The task's official file, JSON lines, JSON of answers by id, or a run's samples.parquet; retrieval: "
            "scores (.npy, .npz, .safetensors, .pt) or ranked lists (.json)."
        ),
    ],
    data_root: DataRoot = None,
    tasks_dir: TasksDir = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the predictions; left out: the task's report split.")
    ] = None,
    domain: Annotated[str, typer.Option(help="Domain of the synthetic data: plain or textured.")] = "plain",
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Accept missing predictions; the report says so.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score an existing prediction file; neither images nor PyTorch are needed.

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
