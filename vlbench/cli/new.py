"""`vlbench new`: scaffold a model or a task."""

from __future__ import annotations

import keyword
import re
import shlex
import shutil
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.paths import expand_home
from vlbench.data.cache.temporary import temporary_path

_TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".txt"
"""Suffix of templates, so that tools do not take them for code."""


class Kind(StrEnum):
    """What can be scaffolded."""

    model = "model"
    task = "task"


def new(
    kind: Annotated[Kind, typer.Argument(help="model or task.")],
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and _.")],
    into: Annotated[Path, typer.Option(help="Folder to create its folder in.")] = Path(),
) -> None:
    """Scaffold a model or a task: a card, working code, a README and a test.

    \b
    Examples:
      vlbench new model palette
      vlbench new task paint --into mytasks
    """
    folder = expand_home(into) / name
    _check(kind, name, folder)
    _write(_TEMPLATES / kind, folder, _words(name))
    typer.echo(folder)
    typer.echo(f"next: {_next_step(kind, name, folder)}")


def _check(kind: Kind, name: str, folder: Path) -> None:
    """Raise VlbenchError if the name fits no card, module and class, or is taken, or the folder exists."""
    from vlbench import catalog

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise VlbenchError(
            f"{name!r} is not a valid name for a {kind}: use lower-case letters, digits and _, a letter first, "
            f"e.g. my_{kind}"
        )
    if name in (catalog.model_folders() if kind is Kind.model else catalog.task_folders()):
        raise VlbenchError(f"{name!r} is already a {kind} of vlbench: choose another name")
    if folder.exists():
        raise VlbenchError(f"{folder} exists and is not overwritten: choose another name, or another --into")


def _words(name: str) -> dict[str, str]:
    """The values of the placeholders in the templates."""
    parts = [part for part in name.split("_") if part]
    return {
        "name": name,
        "title": " ".join(parts).capitalize(),
        "class_name": "".join(part.capitalize() for part in parts),
    }


def _write(templates: Path, folder: Path, words: dict[str, str]) -> None:
    """Write the filled templates into a temporary folder next to it, then rename that: all files exist or none."""
    temporary = temporary_path(folder)
    try:
        for template in sorted(templates.rglob(f"*{_SUFFIX}")):
            place = str(template.relative_to(templates)).removesuffix(_SUFFIX).replace("NAME", words["name"])
            file = temporary / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(template.read_text(encoding="utf8")).substitute(words), encoding="utf8")
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DataError(f"cannot write {folder} ({error.strerror}): give another --into") from None


def _next_step(kind: Kind, name: str, folder: Path) -> str:
    """The command that runs it."""
    model, task, more = "fake", name, ["--tasks-dir", str(folder.parent), "--data-root", str(folder / "sample")]
    if kind is Kind.model:
        model, task, more = f"{folder / 'backbone.py'}:{_words(name)['class_name']}", "nlvr2", []
    return shlex.join(["vlbench", "run", "--task", task, "--model", model, *more])
