"""`vlbench leaderboard`: a table of models by tasks, made from records only."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.spec import split_names
from vlbench.core.errors import DataError, VlbenchError, printable
from vlbench.core.paths import expand_home, visible
from vlbench.core.yamlfile import is_yaml_file

if TYPE_CHECKING:
    from vlbench.report.tables.leaderboard import Board, Choice


class Form(StrEnum):
    """Output formats of a leaderboard."""

    md = "md"
    html = "html"
    csv = "csv"
    latex = "latex"
    json = "json"


_FORMS = {".html": Form.html, ".htm": Form.html, ".csv": Form.csv, ".tex": Form.latex, ".json": Form.json}
Pareto = Annotated[str, typer.Option(help="Mark the Pareto front by latency, memory or parameters.")]
Published = Annotated[
    list[str] | None,
    typer.Option(
        "--published",
        metavar="[FILE|DIR]",
        help="Also show published results; with a YAML file or a folder of such files, those as well.",
    ),
]
Columns = Annotated[
    str, typer.Option(help="Metrics, `main`, selection, or parameters, latency, memory, examples/s; with commas.")
]
Format = Annotated[
    Form | None,
    typer.Option("--format", help="md, html, csv, latex or json; left out: by the suffix of the file, else md."),
]


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs in or below, or records (*.json).")],
    task: Annotated[str, typer.Option(help="Tasks, with commas; left out: all.")] = "",
    columns: Columns = "main",
    sort: Annotated[str, typer.Option(help="rank, model, a task or a metric.")] = "rank",
    form: Format = None,
    pareto: Pareto = "",
    published: Published = None,
    expect: Annotated[bool, typer.Option("--expect", help="Compare each record with its published result.")] = False,
    inject: Annotated[Path | None, typer.Option(help="Write it between the vlbench marks of this file.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write it into this file.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Plot scores over the cost of --pareto into this SVG file.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 11 if the file is stale.")] = False,
) -> None:
    """Compare the scores of runs in one table, where they mean the same.

    \b
    Examples:
      vlbench leaderboard runs --task nlvr2,gqa --columns main,latency --pareto latency
      vlbench leaderboard runs --published own.yaml --expect
      vlbench leaderboard runs --inject README.md --check
      vlbench leaderboard runs --format csv --output board.csv
      vlbench leaderboard runs --columns main,latency --pareto latency --format html --output index.html
    """
    from vlbench.report.tables.leaderboard import Choice

    form = form or _FORMS.get((inject or output or Path()).suffix.lower(), Form.md)
    _check_destinations(form, inject, output, picture, check)
    if (published is not None or expect) and form in (Form.csv, Form.json):
        raise VlbenchError(f"--format {form} has measured scores only: leave out --published and --expect")
    _check_no_published_results(runs)
    choice = Choice(
        tuple(split_names("task", task)) if task else (), tuple(split_names("columns", columns)), sort, pareto
    )
    board, text = _board(runs, choice, form, published, expect, whole_page=not inject)
    if form is Form.csv:  # which has no place for notes
        for note in board.notes:
            typer.echo(printable(note), err=True)
    _write(board, text, inject, output, picture, check)


def _check_destinations(
    form: Form, inject: Path | None, output: Path | None, picture: Path | None, check: bool
) -> None:
    """Raise VlbenchError if the flags for files do not agree."""
    if check and not (inject or output or picture):
        raise VlbenchError("--check needs a file to check: give --inject, --output or --picture")
    if inject and (output or form not in (Form.md, Form.html)):
        raise VlbenchError(f"--inject {inject} takes Markdown or HTML and no --output: leave one of them out")


def _board(
    runs: list[Path], choice: Choice, form: Form, published: list[str] | None, expect: bool, whole_page: bool
) -> tuple[Board, str]:
    """The leaderboard of the runs, and its text in that form, with the tables of published results that are asked for.

    whole_page: whether HTML is a page of its own, not a table to put into one.
    """
    from vlbench import __version__, catalog
    from vlbench.records.collect import collect
    from vlbench.report.published.reproduction import expectations
    from vlbench.report.published.results import own_models, published_models
    from vlbench.report.published.text import expectation_table, published_table
    from vlbench.report.tables.leaderboard import board as make_board
    from vlbench.report.tables.leaderboard_text import render
    from vlbench.report.tables.markup import as_markup

    collected = collect(runs)
    if not collected.runs:
        raise DataError(f"none of {len(collected.faults):,} records can be read: {'; '.join(collected.faults[:5])}")
    tasks = {run.record.task.name for run in collected.runs}
    cards = {name: catalog.task_card(name) for name in catalog.task_folders()}
    versions = {name: card.version for name, card in cards.items() if name in tasks}
    own = [expand_home(Path(place)) for place in dict.fromkeys(published or []) if place]
    models = [*published_models(), *(model for path in own for model in own_models(path, cards, tasks))]
    board = make_board(collected.runs, collected.faults, choice, __version__, versions)
    parts = []
    if expect:
        chosen = [run for run in collected.runs if run.record.task.name in board.tasks]
        parts.append(expectation_table(expectations(chosen, __version__, versions, models), as_markup(form.value)))
    if published is not None:
        parts += [part for name in board.tasks if (part := published_table(name, (), as_markup(form.value), models))]
    if form is Form.html and whole_page:
        from vlbench.report.html.board_page import board_page  # jinja, which no other form needs

        return board, board_page(board, parts).rstrip("\n")
    return board, "\n\n".join([render(board, form.value), *parts])


def _write(
    board: Board, text: str, inject: Path | None, output: Path | None, picture: Path | None, check: bool
) -> None:
    """Write the text and the plot into their files, or the text to stdout where it has none."""
    from vlbench.report.tables.inject import put

    files = [(path, text) for path in (inject or output,) if path]
    if picture:
        from vlbench.report.html.fronts import fronts_svg

        files.append((picture, fronts_svg(board)))
    for path, content in files:
        changed = put(path, content, marks=path == inject, check=check)
        typer.echo(f"{path} {'written' if changed else 'is up to date'}")
    if not (inject or output):
        typer.echo(text)


def spelled_out(arguments: list[str]) -> list[str]:
    """The command line with the value of `--published` joined to it: `--published=FILE|DIR`, or `--published=`.

    The next argument is its value where it names a YAML file, or a folder that holds YAML files and no record in or
    below; every other one is one of the runs. `--published=DIR` takes any folder.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    spelled: list[str] = []
    rest = arguments[:end]
    while rest:
        argument = rest.pop(0)
        if argument == "--published":
            argument = f"--published={rest.pop(0) if rest and _holds_published_results(rest[0]) else ''}"
        spelled.append(argument)
    return [*spelled, *arguments[end:]]


def _holds_published_results(argument: str) -> bool:
    if argument.startswith("-"):
        return False
    path = expand_home(Path(argument))
    if path.is_dir():
        return any(map(is_yaml_file, visible(path, "*"))) and not visible(path, "**/*.json")
    return is_yaml_file(path)


def _check_no_published_results(runs: list[Path]) -> None:
    """Raise VlbenchError, with the flag for it, if a file of published results is among the runs."""
    if files := [path for path in runs if is_yaml_file(path)]:
        raise VlbenchError(f"{files[0]} is not a run: give your own published results as --published {files[0]}")
