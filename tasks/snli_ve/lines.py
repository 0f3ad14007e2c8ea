"""SNLI-VE's JSON lines, read for the tasks that differ in which sentences of a line are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.task import SplitFiles
from vlbench.data.json.lines import Fields, folder, one_of, read_json_lines, text

LABELS = ("contradiction", "neutral", "entailment")
IMAGE_KEYS = ("Flickr30K_ID", "Flikr30kID")
"""Of the present generator, and of the older release, which spells it so and adds `.jpg`."""
BETWEEN = " | "
"""Stands between two sentences, some of which end without a full stop."""


def read_examples(files: SplitFiles, sentences: Sequence[str]) -> Iterator[Example[Label]]:
    """One example per line; the text is what these keys hold, in their order, and the group the photograph.

    Raises:
        DataError: a line that is not what the official format promises, with file and line number.
    """
    annotations, images = files.path("annotations"), files.place("images")
    for number, line in read_json_lines(annotations):
        yield _example(line, sentences, images, f"{annotations}, line {number}")


def _example(line: Fields, sentences: Sequence[str], images: Path, where: str) -> Example[Label]:
    image_key = next((key for key in IMAGE_KEYS if key in line), IMAGE_KEYS[0])
    picture = folder(line, image_key, where).removesuffix(".jpg")
    label = one_of(line, "gold_label", LABELS, where)
    tags = {"gold_label": label}
    words = BETWEEN.join(text(line, key, where) for key in sentences)
    return Example(
        id=text(line, "pairID", where),
        query=Query((ImageRef(images / f"{picture}.jpg", picture),), words),
        reference=Label(label),
        group=picture,
        tags=tags | {"kind": text(line, "kind", where)} if "kind" in line else tags,
    )
