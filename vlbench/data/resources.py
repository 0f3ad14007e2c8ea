"""What a model needs besides its weights: words, regions, pictures. Passed in, never looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from PIL.Image import Image

from vlbench.core.examples import ImageRef
from vlbench.data.regions.types import RegionSource
from vlbench.data.text.tokenizer import TextEncoder


class PictureSource(Protocol):
    """Opens pictures as RGB."""

    def open(self, ref: ImageRef) -> Image: ...


@dataclass(frozen=True)
class Loading:
    """How transformers brings a pretrained model into memory; see `core.spec.RunSpec`.

    dtype: of its weights. at_once: whether the model's own weights are loaded as soon as it is made, so that none have
    to be drawn for it.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device_map: Literal["auto"] | None = None
    quantize: Literal["8bit", "4bit"] | None = None
    trust_remote_code: bool = False
    at_once: bool = False


@dataclass(frozen=True)
class Resources:
    """The doors of a backbone to the data; a control replaces them, so no model knows of controls.

    words: the tokenizer; None for a model that brings its own.
    """

    words: TextEncoder | None
    pictures: PictureSource
    regions: RegionSource | None = None
    loading: Loading = Loading()

    @property
    def text(self) -> TextEncoder:
        """The tokenizer, of a model that brings none.

        Raises:
            ValueError: there is none.
        """
        if self.words is None:
            raise ValueError("these resources are of a model that brings its own tokenizer")
        return self.words
