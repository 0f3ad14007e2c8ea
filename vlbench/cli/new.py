"""`vlbench new`: a folder with a working model or task in it, to be changed into one's own."""

from __future__ import annotations

import keyword
import os
import re
import shlex
import shutil
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from vlbench.core.errors import DataError, VlbenchError

_TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".txt"
"""Behind a template's name: what is code only when it is written out is none here."""


class Kind(StrEnum):
    """What can be begun."""

    model = "model"
    task = "task"


def new(
    kind: Annotated[Kind, typer.Argument(help="model or task.")],
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and _.")],
    into: Annotated[Path, typer.Option(help="Folder in which its folder is made.")] = Path(),
) -> None:
    """Begin a model or a task: a card, code that runs, a README and a test.

    \b
    Examples:
      vlbench new model palette
      vlbench new task paint --into mytasks
    """
    folder = into.expanduser() / name
    _check(kind, name, folder)
    _write(_TEMPLATES / kind, folder, _words(name))
    typer.echo(folder)
    typer.echo(f"next: {_next_step(kind, name, folder)}")


def _check(kind: Kind, name: str, folder: Path) -> None:
    """A name that a card, a module and a class can have, that nothing else has.

    Raises:
        VlbenchError: it cannot be used, or the folder is there.
    """
    from vlbench import catalog

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise VlbenchError(
            f"{name!r} is no name for a {kind}: begin with a small letter, go on with small letters, digits and _, "
            f"e.g. my_{kind}"
        )
    if name in (catalog.model_folders() if kind is Kind.model else catalog.task_folders()):
        raise VlbenchError(f"{name!r} is a {kind} of vlbench already: choose another name")
    if folder.exists():
        raise VlbenchError(f"{folder} is there already and is left as it is: choose another name, or another --into")


def _words(name: str) -> dict[str, str]:
    """What the templates' placeholders stand for."""
    parts = [part for part in name.split("_") if part]
    return {
        "name": name,
        "title": " ".join(parts).capitalize(),
        "class_name": "".join(part.capitalize() for part in parts),
    }


def _write(templates: Path, folder: Path, words: dict[str, str]) -> None:
    """Fill in the templates beside the folder, then rename: it is there whole or not at all."""
    beside = folder.with_name(f"{folder.name}.new-{os.getpid()}")
    try:
        for template in sorted(templates.rglob(f"*{_SUFFIX}")):
            place = str(template.relative_to(templates)).removesuffix(_SUFFIX).replace("NAME", words["name"])
            file = beside / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(template.read_text(encoding="utf8")).substitute(words), encoding="utf8")
        beside.rename(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise DataError(f"cannot write {folder} ({error.strerror}): give another --into") from None


def _next_step(kind: Kind, name: str, folder: Path) -> str:
    """The command that tries it."""
    model, task, more = "fake", name, ["--tasks-dir", str(folder.parent), "--data-root", str(folder / "sample")]
    if kind is Kind.model:
        model, task, more = f"{folder / 'backbone.py'}:{_words(name)['class_name']}", "nlvr2", []
    return shlex.join(["vlbench", "run", "--task", task, "--model", model, *more])
