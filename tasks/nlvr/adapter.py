"""NLVR's official JSON lines to examples: one statement and a label, six pictures that show the same boxes permuted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.task import SplitFiles
from vlbench.data.json.lines import folder, one_of, read_json_lines, text

LABELS = ("false", "true")
PERMUTATIONS = 6
IDENTIFIER = re.compile(r"(\d+)-\d+", re.ASCII)


def examples(files: SplitFiles) -> Iterator[Example[Label]]:
    """Six examples per line, one for each picture; the group is the set of pictures it was written about.

    Raises:
        DataError: a line that is not what the official format promises, with file and line number.
    """
    annotations, images = files.path("annotations"), files.place("images")
    # The split `hidden` names no directory, so its pictures are found by their file names.
    index = {} if "{directory}" in images.name else {path.name: path for path in sorted(images.rglob("*.png"))}
    for number, line in read_json_lines(annotations):
        where = f"{annotations}, line {number}"
        identifier = text(line, "identifier", where)
        parts = IDENTIFIER.fullmatch(identifier)
        if parts is None:
            raise DataError(f"{where}: 'identifier' is {identifier!r}: expected set-position as in '1572-0'")
        home = _home(line, images, where)
        sentence, label = text(line, "sentence", where), Label(one_of(line, "label", LABELS, where))
        for permutation in range(PERMUTATIONS):
            name = f"{files.split}-{identifier}-{permutation}.png"
            picture = ImageRef(index.get(name, home / name), name.removesuffix(".png"))
            yield Example(name, Query((picture,), sentence), label, group=f"{files.split}-{parts[1]}")


def _home(line: Mapping[str, object], images: Path, where: str) -> Path:
    """The folder of a line's pictures."""
    return images.with_name(folder(line, "directory", where)) if "{directory}" in images.name else images
