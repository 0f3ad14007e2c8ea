"""What GQA gives out beside its questions: the choices of the official evaluation, and scene graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern

from vlbench._tasks.gqa.fields import number, strings
from vlbench._tasks.gqa.reference import Box
from vlbench.core.errors import DataError
from vlbench.core.task import SplitFiles
from vlbench.data.json.document import as_object, object_at
from vlbench.data.json.lines import Fields
from vlbench.data.json.stream import entries

Choices = tuple[tuple[str, ...], tuple[str, ...]]
"""The valid answers to a question, and the plausible ones."""


@dataclass(frozen=True)
class Evidence:
    """choices: by question. objects: picture -> object -> box. Empty where there is no file."""

    choices: Mapping[str, Choices]
    objects: Mapping[str, Mapping[str, Box]]

    def boxes(self, picture: str, names: Sequence[str]) -> tuple[Box, ...] | None:
        """The boxes of these objects of a picture; None where the scene graphs lack one."""
        known = self.objects.get(picture)
        if known is None or not all(name in known for name in names):
            return None
        return tuple(known[name] for name in names)


def read_evidence(files: SplitFiles) -> Evidence:
    """The evidence about a split: what is there of the files that its card names.

    Raises:
        DataError: one cannot be read, or has an entry that its format does not allow.
    """
    named = {name: files.place(name) for name in ("choices", "scene_graphs") if name in files.card.files}
    there = {name: path for name, path in named.items() if path.is_file()}
    return Evidence(
        choices=_choices(there["choices"]) if "choices" in there else {},
        objects=_objects(there["scene_graphs"]) if "scene_graphs" in there else {},
    )


def _choices(path: Path) -> dict[str, Choices]:
    pool: dict[tuple[str, ...], tuple[str, ...]] = {}  # many questions have the same choices

    def shared(fields: Fields, key: str, where: str) -> tuple[str, ...]:
        values = tuple(strings(fields, key, where))
        return pool.setdefault(values, values)

    found: dict[str, Choices] = {}
    for name, entry in entries(path):
        where = f"{path}, question {name[:60]!r}"
        fields = as_object(entry, where)
        found[intern(name)] = shared(fields, "valid", where), shared(fields, "plausible", where)
    return found


def _objects(path: Path) -> dict[str, dict[str, Box]]:
    return {picture: _boxes(entry, f"{path}, picture {picture[:60]!r}") for picture, entry in entries(path)}


def _boxes(entry: object, where: str) -> dict[str, Box]:
    graph = as_object(entry, where)
    width, height = number(graph, "width", where), number(graph, "height", where)
    if min(width, height) <= 0:
        raise DataError(f"{where}: a picture of {width:g} x {height:g} pixels: expected more than none; fetch it again")
    found: dict[str, Box] = {}
    for name, thing in object_at(graph, "objects", where).items():
        inner = f"{where}, object {name[:60]!r}"
        fields = as_object(thing, inner)
        x, y, w, h = (number(fields, key, inner) for key in ("x", "y", "w", "h"))
        found[intern(name)] = x / width, y / height, w / width, h / height
    return found
