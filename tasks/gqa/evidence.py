"""GQA's files besides the questions: the choices of the official evaluation, and scene graphs."""

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
"""The valid and the plausible answers to a question."""


@dataclass(frozen=True)
class Evidence:
    """The evidence of a split. choices: by question. objects: image -> object -> box. Both are empty without a file."""

    choices: Mapping[str, Choices]
    objects: Mapping[str, Mapping[str, Box]]

    def boxes(self, image: str, names: Sequence[str]) -> tuple[Box, ...] | None:
        """The boxes of these objects of an image; None if the scene graphs lack one of them."""
        known = self.objects.get(image)
        if known is None or not all(name in known for name in names):
            return None
        return tuple(known[name] for name in names)


def read_evidence(files: SplitFiles) -> Evidence:
    """Read the evidence of a split from those files of its card that exist.

    Raises DataError if a file cannot be read, or has an entry that its format does not allow.
    """
    named = {name: files.place(name) for name in ("choices", "scene_graphs") if name in files.card.files}
    paths = {name: path for name, path in named.items() if path.is_file()}
    return Evidence(
        choices=_read_choices(paths["choices"]) if "choices" in paths else {},
        objects=_read_objects(paths["scene_graphs"]) if "scene_graphs" in paths else {},
    )


def _read_choices(path: Path) -> dict[str, Choices]:
    unique: dict[tuple[str, ...], tuple[str, ...]] = {}  # many questions have the same choices

    def shared(fields: Fields, key: str, where: str) -> tuple[str, ...]:
        values = tuple(strings(fields, key, where))
        return unique.setdefault(values, values)

    choices: dict[str, Choices] = {}
    for name, entry in entries(path):
        where = f"{path}, question {name[:60]!r}"
        fields = as_object(entry, where)
        choices[intern(name)] = shared(fields, "valid", where), shared(fields, "plausible", where)
    return choices


def _read_objects(path: Path) -> dict[str, dict[str, Box]]:
    return {image: _boxes(entry, f"{path}, image {image[:60]!r}") for image, entry in entries(path)}


def _boxes(entry: object, where: str) -> dict[str, Box]:
    graph = as_object(entry, where)
    width, height = number(graph, "width", where), number(graph, "height", where)
    if min(width, height) <= 0:
        size = f"{width:g} x {height:g} pixels"
        raise DataError(f"{where}: the image has {size}: expected a positive size; download the file again")
    boxes: dict[str, Box] = {}
    for name, thing in object_at(graph, "objects", where).items():
        inner = f"{where}, object {name[:60]!r}"
        fields = as_object(thing, inner)
        x, y, w, h = (number(fields, key, inner) for key in ("x", "y", "w", "h"))
        boxes[intern(name)] = x / width, y / height, w / width, h / height
    return boxes
