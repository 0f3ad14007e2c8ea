"""The gallery of a retrieval task: its images, its texts, and the image of each text.

Shapes: N images, M texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vlbench.core.examples import Caption, Example, ImageRef


@dataclass(slots=True)
class Gallery:
    """N images and M texts of one fold, in the order of the files. owner [M]: the row of each text's image."""

    fold: str
    images: list[ImageRef] = field(default_factory=list)
    text_ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)


def galleries(examples: Sequence[Example[Caption]]) -> list[Gallery]:
    """One gallery per fold, with folds, images and texts in the order of their first occurrence."""
    by_fold: dict[str, Gallery] = {}
    rows: dict[tuple[str, str], int] = {}
    for example in examples:
        caption, (ref,) = example.reference, example.query.images
        gallery = by_fold.setdefault(caption.fold, Gallery(caption.fold))
        row = rows.setdefault((caption.fold, ref.key), len(gallery.images))
        if row == len(gallery.images):
            gallery.images.append(ref)
        gallery.text_ids.append(example.id)
        gallery.texts.append(example.query.text)
        gallery.owner.append(row)
    return list(by_fold.values())
