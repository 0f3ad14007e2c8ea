"""NLVR: reads the official JSON lines; a statement, a label, and six images that show the same boxes permuted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.paths import visible
from vlbench.core.task import SplitFiles
from vlbench.data.json.lines import folder, one_of, read_json_lines, text

LABELS = ("false", "true")
PERMUTATIONS = 6
IDENTIFIER = re.compile(r"(\d+)-\d+", re.ASCII)


def examples(files: SplitFiles) -> Iterator[Example[Label]]:
    """Yield six examples per line, one per image; the group is the set of images the statement was written about.

    Raises DataError if a line does not have the official format; the message names file and line.
    """
    annotations, images = files.path("annotations"), files.place("images")
    # The split `hidden` names no directory, so its images are found by their file names.
    named = "{directory}" in images.name
    by_name = {} if named else {path.name: path for path in visible(images, "**/*.png")}
    for number, line in read_json_lines(annotations):
        where = f"{annotations}, line {number}"
        identifier = text(line, "identifier", where)
        parts = IDENTIFIER.fullmatch(identifier)
        if parts is None:
            raise DataError(f"{where}: 'identifier' is {identifier!r}: expected set-position as in '1572-0'")
        image_folder = images.with_name(folder(line, "directory", where)) if named else images
        sentence, label = text(line, "sentence", where), Label(one_of(line, "label", LABELS, where))
        for permutation in range(PERMUTATIONS):
            name = f"{files.split}-{identifier}-{permutation}.png"
            image = ImageRef(by_name.get(name, image_folder / name), name.removesuffix(".png"))
            yield Example(name, Query((image,), sentence), label, group=f"{files.split}-{parts[1]}")
