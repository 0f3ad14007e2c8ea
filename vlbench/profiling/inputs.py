"""Generated images and texts to measure with: the same for every model, of known size, without any dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.images.load import open_image
from vlbench.data.regions.types import Regions
from vlbench.data.text.tokenizer import SPECIAL, TextEncoder

VOCABULARY_SIZE = 30_522
"""Entries of bert-base-uncased's vocabulary, so that embedding tables have its size."""
_COARSE = 16
"""Pixels over which an image changes smoothly, so that it compresses like a photograph."""


def write_images(folder: Path, size: tuple[int, int], count: int, seed: int) -> list[ImageRef]:
    """Write different JPEG files of smooth noise; size: width and height in pixels."""
    width, height = size
    folder.mkdir(parents=True, exist_ok=True)
    refs = []
    for number in range(count):
        rng = np.random.default_rng([seed % 2**64, number])
        coarse = rng.integers(0, 256, (max(2, height // _COARSE), max(2, width // _COARSE), 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = (smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(noisy).save(path, quality=90)
        refs.append(ImageRef(path, str(number)))
    return refs


def make_texts(count: int, words: int, seed: int) -> list[str]:
    """Texts of `words` words, each of which is one token of `write_vocabulary`'s tokenizer."""
    rng = Random(f"{seed}/sentences")
    return [" ".join(f"w{rng.randrange(1000)}" for _ in range(words)) for _ in range(count)]


def write_vocabulary(folder: Path, max_length: int) -> TextEncoder:
    """A tokenizer with as many entries as bert-base-uncased, for models whose own tokenizer is not available."""
    path = folder / "vocab.txt"
    letters = [f"{prefix}{letter}" for prefix in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    words = [f"w{number}" for number in range(VOCABULARY_SIZE - len(SPECIAL) - len(letters))]
    path.write_text("\n".join([*SPECIAL, *letters, *words]) + "\n", encoding="utf8")
    return TextEncoder.from_vocab(path, max_length)


class DecodedImages:
    """The images of a batch after decoding, so that decoding is measured apart from preprocessing."""

    def __init__(self) -> None:
        self.images: dict[str, Image.Image] = {}

    def decode(self, refs: Sequence[ImageRef]) -> None:
        """Open the images; those of earlier calls are dropped."""
        self.images = {ref.key: open_image(ref.path) for ref in refs}

    def open(self, ref: ImageRef) -> Image.Image:
        """The decoded image, in RGB."""
        return self.images[ref.key]


class DetectedRegions:
    """The regions of a batch's images, as the detector stages leave them. dim: width of a region's features."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.regions: dict[str, Regions] = {}

    def get(self, ref: ImageRef) -> Regions:
        """The regions of the image.

        Raises:
            VlbenchError: the image has none.
        """
        if ref.key not in self.regions:
            raise VlbenchError(
                f"image {ref.key} has no regions: profile with the detector, or choose a model without regions"
            )
        return self.regions[ref.key]
