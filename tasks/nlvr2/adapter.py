"""NLVR2: reads the official JSON lines; an example is two images, a statement and a label."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.task import SplitFiles
from vlbench.data.json.lines import folder, one_of, read_json_lines, text

LABELS = ("False", "True")
TAGS = ("kind", "synset")
IDENTIFIER = re.compile(r"(\w+-\d+)-(\d+)-(\d+)", re.ASCII)


def examples(files: SplitFiles) -> Iterator[Example[Label]]:
    """Yield one example per line; the group is the statement, which up to four pairs of images share.

    Raises DataError if a line does not have the official format; the message names file and line.
    """
    annotations, images = files.path("annotations"), str(files.place("images"))
    for number, line in read_json_lines(annotations):
        yield _example(line, images, f"{annotations}, line {number}")


def _example(line: Mapping[str, object], images: str, where: str) -> Example[Label]:
    identifier = text(line, "identifier", where)
    parts = IDENTIFIER.fullmatch(identifier)
    if parts is None:
        raise DataError(
            f"{where}: 'identifier' is {identifier!r}: expected split-set-pair-sentence as in 'dev-850-0-1'"
        )
    image_set, pair, sentence = parts.groups()
    if "{directory}" in images:
        images = images.replace("{directory}", folder(line, "directory", where))
    keys = [f"{image_set}-{pair}-img{slot}" for slot in (0, 1)]
    return Example(
        id=identifier,
        query=Query(tuple(ImageRef(Path(images, f"{key}.png"), key) for key in keys), text(line, "sentence", where)),
        reference=Label(one_of(line, "label", LABELS, where)),
        group=f"{image_set}-_-{sentence}",
        tags={tag: text(line, tag, where) for tag in TAGS if tag in line},
    )
