"""What a model needs besides its weights: words, regions, pictures. Passed in, never looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image

from vlbench.core.examples import ImageRef
from vlbench.data.regions.types import RegionSource
from vlbench.data.text import TextEncoder


class PictureSource(Protocol):
    """Opens pictures as RGB."""

    def open(self, ref: ImageRef) -> Image: ...


@dataclass(frozen=True)
class Resources:
    """The doors of a backbone to the data; a control replaces them, so no model knows of controls.

    words: the tokenizer; None for a model that brings its own.
    """

    words: TextEncoder | None
    pictures: PictureSource
    regions: RegionSource | None = None

    @property
    def text(self) -> TextEncoder:
        """The tokenizer, of a model that brings none.

        Raises:
            ValueError: there is none.
        """
        if self.words is None:
            raise ValueError("these resources are of a model that brings its own tokenizer")
        return self.words
