"""`vlbench leaderboard`: models by tasks, from records alone."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.spec import split_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlbench.report.published.results import PublishedModel


class Form(StrEnum):
    """How a leaderboard is written."""

    md = "md"
    html = "html"
    csv = "csv"
    latex = "latex"
    json = "json"


_FORMS = {".html": Form.html, ".htm": Form.html, ".csv": Form.csv, ".tex": Form.latex, ".json": Form.json}


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs in or below, or records (*.json).")],
    task: Annotated[str, typer.Option(help="Tasks, with commas; left out: all.")] = "",
    columns: Annotated[
        str, typer.Option(help="Metrics, `main`, selection, or parameters, latency, memory, examples/s; with commas.")
    ] = "main",
    sort: Annotated[str, typer.Option(help="rank, model, a task or a metric.")] = "rank",
    form: Annotated[
        Form | None,
        typer.Option("--format", help="md, html, csv, latex or json; left out: what the file's name ends in, or md."),
    ] = None,
    pareto: Annotated[str, typer.Option(help="Mark who is best for its latency, memory or parameters.")] = "",
    published: Annotated[
        list[str] | None,
        typer.Option(
            "--published",
            metavar="[FILE|DIR]",
            help="Also show published results; with a YAML file or a folder of such files, those as well.",
        ),
    ] = None,
    expect: Annotated[bool, typer.Option("--expect", help="Judge each record by its published figure.")] = False,
    inject: Annotated[Path | None, typer.Option(help="Put it between this file's vlbench marks.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write it into this file.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw figures over the cost of --pareto into this SVG file.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 11 if the file is stale.")] = False,
) -> None:
    """Put the figures of runs side by side where they mean the same.

    \b
    Examples:
      vlbench leaderboard runs --task nlvr2,gqa --columns main,latency --pareto latency
      vlbench leaderboard runs --published own.yaml --expect
      vlbench leaderboard runs --inject README.md --check
      vlbench leaderboard runs --format csv --output board.csv
      vlbench leaderboard runs --columns main,latency --pareto latency --format html --output index.html
    """
    from vlbench import __version__
    from vlbench.core.errors import DataError, VlbenchError, printable
    from vlbench.records.collect import collect
    from vlbench.report.published.reproduction import expectations
    from vlbench.report.published.text import expectation_table, published_table
    from vlbench.report.tables.inject import put
    from vlbench.report.tables.leaderboard import Choice, board
    from vlbench.report.tables.leaderboard_text import render
    from vlbench.report.tables.markup import as_markup

    if check and not (inject or output or picture):
        raise VlbenchError("--check needs a file to check: give --inject, --output or --picture")
    form = form or _FORMS.get((inject or output or Path()).suffix.lower(), Form.md)
    if inject and (output or form not in (Form.md, Form.html)):
        raise VlbenchError(f"--inject {inject} takes Markdown or HTML and no --output: leave one of them out")
    if (published is not None or expect) and form in (Form.csv, Form.json):
        raise VlbenchError(f"--format {form} holds measured figures alone: leave out --published and --expect")
    _check_no_figures(runs)
    found = collect(runs)
    if not found.runs:
        raise DataError(f"none of {len(found.faults):,} records can be read: {'; '.join(found.faults[:5])}")
    of_runs = {run.record.task.name for run in found.runs}
    versions = _task_versions(of_runs)
    models = _published(published or [], of_runs)
    choice = Choice(
        tuple(split_names("task", task)) if task else (), tuple(split_names("columns", columns)), sort, pareto
    )
    made = board(found.runs, found.faults, choice, __version__, versions)
    parts = []
    if expect:
        chosen = [run for run in found.runs if run.record.task.name in made.tasks]
        parts.append(expectation_table(expectations(chosen, __version__, versions, models), as_markup(form.value)))
    if published is not None:
        parts += [part for name in made.tasks if (part := published_table(name, (), as_markup(form.value), models))]
    if form is Form.html and not inject:
        from vlbench.report.html.board_page import board_page  # jinja, which no other form needs

        text = board_page(made, parts).rstrip("\n")
    else:
        text = "\n\n".join([render(made, form.value), *parts])
    if form is Form.csv:  # which has no place for them
        for note in made.notes:
            typer.echo(printable(note), err=True)
    files = [(path, text) for path in (inject or output,) if path]
    if picture:
        from vlbench.report.html.fronts import fronts_svg

        files.append((picture, fronts_svg(made)))
    for path, content in files:
        changed = put(path, content, marks=path == inject, check=check)
        typer.echo(f"{path} {'written' if changed else 'is up to date'}")
    if not (inject or output):
        typer.echo(text)


def spelled_out(arguments: list[str]) -> list[str]:
    """The command line with what `--published` is given as `--published=FILE|DIR`, and as `--published=` without any.

    The next argument is its own where it names a YAML file, or a folder with YAML files in it and no record in or
    below; every other one is one of the runs. `--published=DIR` names any folder.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    spelled: list[str] = []
    rest = arguments[:end]
    while rest:
        argument = rest.pop(0)
        if argument == "--published":
            argument = f"--published={rest.pop(0) if rest and _holds_figures(rest[0]) else ''}"
        spelled.append(argument)
    return [*spelled, *arguments[end:]]


def _holds_figures(argument: str) -> bool:
    if argument.startswith("-"):
        return False
    path = Path(argument).expanduser()
    if path.is_dir():
        return any(map(_is_yaml, path.iterdir())) and not any(path.rglob("*.json"))
    return _is_yaml(path)


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml")


def _check_no_figures(runs: list[Path]) -> None:
    """Check that no file of published figures is among the runs.

    Raises:
        VlbenchError: one is; the message names the flag for it.
    """
    from vlbench.core.errors import VlbenchError

    if figures := [path for path in runs if _is_yaml(path)]:
        raise VlbenchError(f"{figures[0]} is no run: published figures of your own go to --published {figures[0]}")


def _published(places: list[str], of_runs: set[str]) -> Sequence[PublishedModel]:
    """The figures of vlbench, after them those of the user; places: as `--published` names them, empty for none.

    Raises:
        VlbenchError: exit 2 for a place that is not there; exit 5 for a file that is not what the schema says.
    """
    from vlbench import catalog
    from vlbench.report.published.results import own_models, published_models

    cards = {name: catalog.task_card(name) for name in catalog.task_folders()}
    named = [Path(place).expanduser() for place in dict.fromkeys(places) if place]
    return [*published_models(), *(model for path in named for model in own_models(path, cards, of_runs))]


def _task_versions(tasks: set[str]) -> dict[str, int]:
    """Of those tasks that are known here."""
    from vlbench import catalog

    return {name: catalog.task_card(name).version for name in catalog.task_folders() if name in tasks}
