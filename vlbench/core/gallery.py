"""What is searched: the pictures and the texts of a retrieval task, and which text belongs to which picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vlbench.core.examples import Caption, Example, ImageRef


@dataclass(slots=True)
class Gallery:
    """N pictures and M texts in the order of the files; owner [M] is the row of each text's picture."""

    fold: str
    images: list[ImageRef] = field(default_factory=list)
    text_ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)


def galleries(examples: Sequence[Example[Caption]]) -> list[Gallery]:
    """One gallery per fold, in the order in which folds, pictures and texts first come."""
    found: dict[str, Gallery] = {}
    rows: dict[tuple[str, str], int] = {}
    for example in examples:
        caption, (ref,) = example.reference, example.query.images
        gallery = found.setdefault(caption.fold, Gallery(caption.fold))
        row = rows.setdefault((caption.fold, ref.key), len(gallery.images))
        if row == len(gallery.images):
            gallery.images.append(ref)
        gallery.text_ids.append(example.id)
        gallery.texts.append(example.query.text)
        gallery.owner.append(row)
    return list(found.values())
