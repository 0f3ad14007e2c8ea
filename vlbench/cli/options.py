"""The flags of a verb, generated from the declarations in its spec: the adapter from `core.options` to typer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from typer.core import TyperCommand

from vlbench.core.options import Catalogue, Declared, Group, declared_options

if TYPE_CHECKING:  # typer's own copy of click, which older versions do not have
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

HEADINGS: tuple[str, ...] = get_args(Group)
_SOURCES = "Other sources of values"
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH", help="YAML file whose keys are the names of these flags; flags win.", rich_help_panel=_SOURCES
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="One value, e.g. train.warmup=0.1; wins over flags.",
        rich_help_panel=_SOURCES,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data; left out: synthetic data.")]
TasksDir = Annotated[Path | None, typer.Option(help="Folder with your own task folders.")]
AllowPartial = Annotated[bool, typer.Option("--allow-partial", help="Accept incomplete data; the report says so.")]
_METAVARS = {int: "N", float: "X", Path: "PATH", str: "NAME"}


class GroupedCommand(TyperCommand):
    """A command whose `--help` lists the options below the headings of their groups."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write a section for each group; options without a group come last."""
        groups: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                heading = getattr(parameter, "rich_help_panel", None) or "Options"
                groups.setdefault(heading, []).append(record)
        for heading, rows in groups.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def with_options_of(spec: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the flags of a spec.

    The decorated function takes a mapping from option names to the values that were given, and after it the verb's own
    options, declared as typer has them.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        flags = [flag for option in declared_options(spec) for flag in _flags(option, spec)]

        def verb(**values: Any) -> None:
            given = {flag.name: value for flag in flags if (value := values.pop(flag.name)) not in (None, [], ())}
            body(given, **values)

        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*flags, *own)]
        vars(verb)["__signature__"] = inspect.Signature(keyword)
        verb.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword}
        verb.__name__, verb.__doc__ = body.__name__, body.__doc__
        return verb

    return decorate


def _flags(option: Declared, spec: type[BaseModel]) -> Iterator[inspect.Parameter]:
    """The flag of an option, and the hidden one of its old name; none of an option without a group."""
    if option.option.group is None:
        return
    words = {
        other.option.value_of[1]: other.help
        for other in declared_options(spec)
        if other.option.value_of and other.option.value_of[0] == option.name
    }
    yield _flag(option, option.name, words)
    if option.option.formerly:
        yield _flag(option, option.option.formerly, words, hidden=True)


def _flag(option: Declared, name: str, words: Mapping[str, str], hidden: bool = False) -> inspect.Parameter:
    """One flag as a parameter of a typer command. words: values besides those of the option's type, and their help."""
    kind, choices, several = _shape(option.annotation)
    choices = (*choices, *words)
    flag = f"--{name.replace('_', '-')}"
    repeated = option.option.repeated
    parsed = str if words or (several and not repeated) else kind
    default = "required" if option.required else f"default: {default_text(option)}"
    info = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=" ".join((option.help, *(f"{word}: {text}" for word, text in words.items()), f"[{default}]")),
        metavar=None if kind is bool else option.option.metavar or _metavar(kind, choices, several),
        rich_help_panel=option.option.group,
        show_default=False,
        hidden=hidden,
        autocompletion=_completion(choices, option.option.known, several),
    )
    annotation = Annotated[list[parsed] | None if repeated else parsed | None, info]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def default_text(option: Declared) -> str:
    """The default as `--help` shows it; empty where neither the declaration nor the field has one."""
    value = option.default
    if option.option.shown or value is None:
        return option.option.shown
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shape(annotation: object) -> tuple[type, tuple[str, ...], bool]:
    """What a value of that type is on a command line: its type, its choices, and whether commas separate several."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape(inner[0])
    if origin is Literal:
        return str, tuple(map(str, inner)), False
    if origin in (Union, UnionType):
        shapes = [_shape(part) for part in inner if part is not type(None)]
        return shapes[0][0], shapes[0][1], any(several for _, _, several in shapes)
    if origin is tuple:
        kind, choices, _ = _shape(inner[0])
        return kind, choices, True
    return (annotation if annotation in (bool, int, float, Path) else str), (), False


def _metavar(kind: type, choices: tuple[str, ...], several: bool) -> str:
    if choices and kind is str and not several:
        return f"[{'|'.join(choices)}]"
    return "|".join((f"{_METAVARS[kind]},..." if several else _METAVARS[kind], *(() if kind is str else choices)))


def _completion(choices: tuple[str, ...], known: Catalogue | None, several: bool) -> Callable[[str], list[str]] | None:
    """What completes a value: its choices, or the names of the catalogue; after a comma the next of several."""
    if not (choices or known):
        return None

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several or known else ("", "", incomplete)
        names = [*choices]
        if known:
            from vlbench import catalog

            names += catalog.task_folders() if known == "task" else catalog.model_folders()
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    return complete
