"""`vlbench data list` and `vlbench data fetch`: list and download the files that tasks need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.options import AsJson, Quiet, TasksDir
from vlbench.cli.spec import split_names
from vlbench.core.errors import DataError, ExitCode, VlbenchError

if TYPE_CHECKING:
    from vlbench.data.files.fetch import Place

DataRoot = Annotated[Path, typer.Option(help="Folder that contains the tasks' folders.")]


def list_(
    task: Annotated[str | None, typer.Option(help="Tasks, with commas; left out: all.")] = None,
    data_root: DataRoot = Path("data"),
    tasks_dir: TasksDir = None,
    as_json: AsJson = False,
) -> None:
    """List the files that tasks need, their sources, and which of them exist.

    \b
    Examples:
      vlbench data list
      vlbench data list --task vqa2,gqa --data-root DATA --json
    """
    from tabulate import tabulate

    from vlbench import catalog

    names = split_names("task", task) if task else list(catalog.task_folders(tasks_dir))
    rows = [_row(name, place) for name in names for place in _places(name, data_root, tasks_dir)]
    if as_json:
        typer.echo(json.dumps({"data_root": str(data_root), "files": rows}, ensure_ascii=False))
        return
    columns = ("task", "state", "needed", "to", "files", "size", "from")
    typer.echo(tabulate([[row[column] for column in columns] for row in rows], headers=columns))
    for name in names:
        card = catalog.task_card(name, tasks_dir)
        typer.echo(f"{name}: {card.licence}; {card.homepage}")


def fetch(
    task: Annotated[str, typer.Argument(help="Tasks, with commas.")],
    data_root: DataRoot = Path("data"),
    tasks_dir: TasksDir = None,
    only: Annotated[str, typer.Option(help="Only files whose name matches, e.g. '*.json' or 'v2_*'.")] = "*",
    optional: Annotated[
        bool,
        typer.Option(
            "--optional/--needed", help="Also fetch files that the task can do without, or only those it needs."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be fetched, then exit.")] = False,
    quiet: Quiet = False,
) -> None:
    """Download a task's files from their official sources; existing files are kept, interrupted downloads resume.

    For files that their owners give out on request, print how to get them. Exit code 5 if a needed file is missing.

    \b
    Examples:
      vlbench data fetch nlvr2 --data-root DATA --dry-run
      vlbench data fetch vqa2 --data-root DATA --only 'v2_*'
    """
    wanted = _wanted(split_names("task", task), data_root, tasks_dir, only, optional)
    failed = [] if dry_run else _fetch_all(wanted, quiet)
    for place in wanted:
        source = place.source
        if place.state == "by hand":
            typer.echo(f"{place.folder}: {', '.join(place.absent)}: {source.by_hand}")
        elif place.state == "missing" and dry_run:
            typer.echo(f"{place.folder}: would fetch {source.url}{f' (about {source.size})' if source.size else ''}")
    for reason in failed:
        typer.echo(reason, err=True)
    by_hand = any(place.state == "by hand" and not place.source.optional for place in wanted)
    if failed or (by_hand and not dry_run):
        raise typer.Exit(ExitCode.DATA)


def _wanted(names: Sequence[str], root: Path, tasks_dir: Path | None, only: str, optional: bool) -> list[Place]:
    """The files of those tasks that do not exist, each once; raises VlbenchError if none is known or matches."""
    wanted: dict[tuple[str, str], Place] = {}
    for name in names:
        for place in _places(name, root, tasks_dir):
            if fnmatch(place.source.name, only) and (optional or not place.source.optional):
                wanted.setdefault((place.source.name, place.source.to), place)
    if not wanted:
        raise VlbenchError(f"--only {only} matches no file of {','.join(names)}: see `vlbench data list`")
    return [place for place in wanted.values() if place.absent or place.leftovers]


def _fetch_all(wanted: Sequence[Place], quiet: bool) -> list[str]:
    """Download the files one after the other; returns the reasons of those that failed."""
    from vlbench.cli.progress import open_progress
    from vlbench.data.files.fetch import fetch as fetch_one

    failed: list[str] = []
    with open_progress(quiet) as progress:
        for place in (place for place in wanted if place.state != "by hand"):
            try:
                fetch_one(place, progress)
            except DataError as error:  # the other files are still useful
                failed.append(error.message)
    return failed


def _places(name: str, root: Path, tasks_dir: Path | None) -> list[Place]:
    from vlbench import catalog
    from vlbench.data.files.fetch import places

    sources = catalog.task_sources(name, tasks_dir)
    if not sources and tasks_dir is None:
        raise VlbenchError(f"no source of {name}'s files is known: see {catalog.task_card(name).homepage}")
    return places(sources, root)


def _row(name: str, place: Place) -> dict[str, str]:
    source = place.source
    return {
        "task": name,
        "state": place.state,
        "needed": "optional" if source.optional else "yes",
        "to": source.to,
        "files": ", ".join(source.gives),
        "size": source.size,
        "from": source.url.split("/")[2] if source.url else "on request",
        "url": source.url,
        "by_hand": source.by_hand,
    }
