"""The data access of a model: tokenizer, images and region features. Passed to the model, never looked up by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from PIL.Image import Image

from vlbench.core.examples import ImageRef
from vlbench.data.regions.types import RegionSource
from vlbench.data.text.tokenizer import TextEncoder


class ImageSource(Protocol):
    """Opens images as RGB."""

    def open(self, ref: ImageRef) -> Image: ...


@dataclass(frozen=True)
class Loading:
    """How transformers loads a pretrained model; see `core.spec.RunSpec`.

    dtype: of its weights. at_once: load the pretrained weights when the model is built, without random initialization.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device_map: Literal["auto"] | None = None
    quantize: Literal["8bit", "4bit"] | None = None
    trust_remote_code: bool = False
    at_once: bool = False


@dataclass(frozen=True)
class Resources:
    """The data access of a backbone. A control replaces it, so no model depends on controls.

    words: the tokenizer; None for a model that brings its own. regions: region features; None if the model needs none.
    """

    words: TextEncoder | None
    images: ImageSource
    regions: RegionSource | None = None
    loading: Loading = Loading()

    @property
    def text(self) -> TextEncoder:
        """The tokenizer. Raises ValueError if there is none, since the model brings its own."""
        if self.words is None:
            raise ValueError("these resources have no tokenizer: the model brings its own")
        return self.words

    @property
    def pictures(self) -> ImageSource:
        """The old name of `images`, for models written for earlier versions."""
        return self.images
