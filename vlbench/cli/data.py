"""`vlbench data`: make the world, check data, describe pictures by regions; list and fetch come from `fetch`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli import fetch
from vlbench.core.domain import known_domain
from vlbench.core.errors import DataError, ExitCode

if TYPE_CHECKING:
    from vlbench.core.task import SplitFiles
    from vlbench.core.task import Task as LoadedTask
    from vlbench.data.verify import SplitReport

app = typer.Typer(help="Make, check and describe data.", no_args_is_help=True, rich_markup_mode=None)

app.command("list")(fetch.list_)
app.command("fetch")(fetch.fetch)

Task = Annotated[str, typer.Option(help="Task whose data is meant.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data; left out: the built-in world.")]
TasksDir = Annotated[Path | None, typer.Option(help="Folder with task folders of your own.")]
Splits = Annotated[str | None, typer.Option("--split", help="Splits, comma-separated; left out: those that are there.")]
AllowPartial = Annotated[bool, typer.Option("--allow-partial", help="Accept other counts; noted.")]


@app.command("world")
def world(
    domain: Annotated[str, typer.Option(help="The look: plain or textured.")] = "plain",
    seed: Annotated[int, typer.Option(help="Seed of another world.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Make the built-in world in the cache folder, and print where it is.

    \b
    Examples:
      vlbench data world
      vlbench data world --domain textured --seed 1
    """
    from vlbench.cli.progress import open_progress
    from vlbench.data.cache import cache_folder
    from vlbench.world.generate import ensure_world

    with open_progress(quiet) as progress:
        root = ensure_world(cache_folder(), known_domain(domain), seed, progress=progress.step)
    typer.echo(root)


@app.command("check")
def check(
    task: Task,
    data_root: DataRoot = None,
    tasks_dir: TasksDir = None,
    split: Splits = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Decode every picture.")] = True,
    allow_partial: AllowPartial = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Count, hash and decode a task's data; exit 5 when something is wrong.

    \b
    Examples:
      vlbench data check --task nlvr2 --data-root NLVR2
      vlbench data check --task nlvr2 --data-root NLVR2 --split dev --no-images --json
      vlbench data check --task flickr8k_retrieval --data-root PART_OF_FLICKR8K --allow-partial
    """
    from vlbench.cli.progress import open_progress
    from vlbench.data.verify import check_split
    from vlbench.engine.source import load_task

    with open_progress(quiet=as_json) as progress:
        loaded = load_task(task, data_root, tasks_dir=tasks_dir, allow_partial=allow_partial, progress=progress)
        reports = [
            check_split(loaded, name, images, partial(progress.step, f"decoding {name}"))
            for name in (split.split(",") if split else _splits_there(loaded))
        ]
    typer.echo(json.dumps(_as_object(task, reports), ensure_ascii=False, default=str) if as_json else _table(reports))
    if not all(report.ok for report in reports):
        raise typer.Exit(ExitCode.DATA)


@app.command("features")
def features(
    task: Task,
    data_root: Annotated[Path, typer.Option(help="Folder of the data.")],
    tasks_dir: TasksDir = None,
    split: Splits = None,
    extractor: Annotated[
        str, typer.Option(help="flat: parts of one colour or a grid, no weights; fasterrcnn: as region models had.")
    ] = "flat",
    weights: Annotated[
        str | None, typer.Option(metavar="<path>", help="Of fasterrcnn: its file, or none for random ones.")
    ] = None,
    regions: Annotated[
        str | None, typer.Option(help="Of fasterrcnn: 36 a picture (the default), or as many as it is sure of: 10-100.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of fasterrcnn: cpu, cuda or mps; left out: the best there is.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the TSV files; left out: the task's features/.")
    ] = None,
    allow_partial: AllowPartial = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Describe every picture by regions and write one LXMERT-format TSV per split, where runs look for them.

    \b
    Examples:
      vlbench data features --task nlvr --data-root NLVR --split dev,test
      vlbench data features --task coco_retrieval --data-root COCO --extractor fasterrcnn --weights butd.bin
    """
    from vlbench.cli.progress import open_progress
    from vlbench.engine.extractors import Choice, describer
    from vlbench.engine.features import write_features
    from vlbench.engine.source import load_task

    with open_progress(quiet) as progress:
        loaded = load_task(task, data_root, tasks_dir=tasks_dir, allow_partial=allow_partial, progress=progress)
        describe = describer(Choice(extractor, weights, regions, device), progress)
        for name in split.split(",") if split else _splits_there(loaded):
            typer.echo(write_features(loaded, name, output or loaded.root / "features", describe, progress))


def _splits_there(task: LoadedTask) -> list[str]:
    """The splits whose files exist."""
    there = [name for name in task.card.splits if _is_there(task.files(name))]
    if not there:
        raise DataError(
            f"no split of {task.card.name} is below {task.root}: put its files there (see the task's README)"
        )
    return there


def _is_there(files: SplitFiles) -> bool:
    """Pictures may be missing, and what the card calls optional; tables may not."""
    tables = (name for name, places in files.card.files.items() if places[0].endswith((".json", ".jsonl")))
    return all(files.place(name).exists() for name in tables if name not in files.card.optional)


def _as_object(task: str, reports: Sequence[SplitReport]) -> dict[str, object]:
    splits = {report.split: {**asdict(report), "ok": report.ok} for report in reports}
    return {"task": task, "ok": all(report.ok for report in reports), "splits": splits}


def _table(reports: Sequence[SplitReport]) -> str:
    from tabulate import tabulate

    rows = [
        {
            "split": report.split,
            "examples": report.examples,
            "expected": report.expected,
            "groups": report.groups,
            "pictures": report.images,
            "missing": report.missing,
            "undecodable": report.undecodable,
            "md5": _md5(report),
            "verdict": "ok" if report.ok else "WRONG",
        }
        for report in reports
    ]
    said = [f"{report.split}: {text}" for report in reports for text in (*report.faults, *report.notes)]
    return "\n".join([tabulate(rows, headers="keys", intfmt=","), *said])


def _md5(report: SplitReport) -> str:
    if not report.md5:
        return "none known"
    return "official" if all(file.found == file.expected for file in report.md5) else "differs"
