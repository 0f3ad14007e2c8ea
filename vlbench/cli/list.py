"""`vlbench list`: tasks, models, metrics and runs, read from cards and records."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vlbench.cli.options import AsJson, TasksDir
from vlbench.core.errors import printable


class What(StrEnum):
    """What can be listed."""

    tasks = "tasks"
    models = "models"
    metrics = "metrics"
    runs = "runs"


def list_(
    what: Annotated[What, typer.Argument(help="tasks, models, metrics or runs.")],
    tasks_dir: TasksDir = None,
    output_path: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List tasks, models, metrics or runs.

    \b
    Examples:
      vlbench list tasks
      vlbench list models --json
    """
    rows = _runs(output_path) if what is What.runs else _rows_of_cards(what, tasks_dir)
    if as_json:
        typer.echo(json.dumps({what.value: rows}, ensure_ascii=False))
        return
    from tabulate import tabulate

    shown = [{key: printable(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows]
    typer.echo(tabulate(shown, headers="keys") if shown else f"no {what.value}")


def _rows_of_cards(what: What, tasks_dir: Path | None) -> list[dict[str, object]]:
    """One row for each task, model or metric of a task."""
    from vlbench import catalog

    if what is What.models:
        models = [catalog.model_card(name) for name in catalog.model_folders()]
        return [
            {"model": card.name, "sizes": ", ".join(card.sizes), "sees": card.visual,
             "answers": ", ".join(card.outputs), "title": card.title}
            for card in models
        ]  # fmt: skip
    tasks = [catalog.task_card(name, tasks_dir) for name in catalog.task_folders(tasks_dir)]
    if what is What.tasks:
        return [
            {"task": card.name, "version": card.version, "output": card.output, "splits": ", ".join(card.splits),
             "main metric": card.main_metric, "title": card.title}
            for card in tasks
        ]  # fmt: skip
    return [
        {"task": card.name, "metric": metric, "main": metric == card.main_metric}
        for card in tasks
        for metric in card.metrics
    ]


def _runs(output_path: Path) -> list[dict[str, object]]:
    """One row for each record; those that cannot be read are named on stderr."""
    from vlbench.core.errors import DataError
    from vlbench.records.folder import find_runs, read_run

    rows: list[dict[str, object]] = []
    for path in find_runs(output_path):
        try:
            record = read_run(path)
        except DataError as error:
            typer.echo(f"left out: {error.message}", err=True)
            continue
        main = record.result(record.task.main_metric) or next(iter(record.results), None)
        rows.append(
            {
                "task": record.task.name,
                "model": f"{record.model.name}-{record.model.size}",
                "data": record.task.source if record.spec.domain == "plain" else record.spec.domain,
                "split": record.task.split,
                "seed": record.spec.seed,
                "n": f"{record.task.n_scored:,} of {record.task.n_total:,}",
                "status": record.status,
                "metric": main.metric if main else "",
                "value": round(main.value, 2) if main else None,
                "run": str(path),
            }
        )
    return rows
