"""Reads SNLI-VE's JSON lines for the tasks, which differ in the sentences of a line that the model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.task import SplitFiles
from vlbench.data.json.lines import Fields, folder, one_of, read_json_lines, text

LABELS = ("contradiction", "neutral", "entailment")
IMAGE_KEYS = ("Flickr30K_ID", "Flikr30kID")
"""The key of the current generator, and of the older release, which has this spelling and adds `.jpg`."""
BETWEEN = " | "
"""Separates two sentences, because some end without a full stop."""


def read_examples(files: SplitFiles, sentences: Sequence[str]) -> Iterator[Example[Label]]:
    """Yield one example per line; the text joins the values of the keys `sentences`, the group is the photograph.

    Raises DataError if a line does not have the official format; the message names file and line.
    """
    annotations, images = files.path("annotations"), files.place("images")
    for number, line in read_json_lines(annotations):
        yield _example(line, sentences, images, f"{annotations}, line {number}")


def _example(line: Fields, sentences: Sequence[str], images: Path, where: str) -> Example[Label]:
    image_key = next((key for key in IMAGE_KEYS if key in line), IMAGE_KEYS[0])
    image = folder(line, image_key, where).removesuffix(".jpg")
    label = one_of(line, "gold_label", LABELS, where)
    tags = {"gold_label": label}
    words = BETWEEN.join(text(line, key, where) for key in sentences)
    return Example(
        id=text(line, "pairID", where),
        query=Query((ImageRef(images / f"{image}.jpg", image),), words),
        reference=Label(label),
        group=image,
        tags=tags | {"kind": text(line, "kind", where)} if "kind" in line else tags,
    )
