"""Pictures and texts to measure with: the same for every model, of a size that is known, without any data."""

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

WORDS = 30_522
"""Size of bert-base-uncased's vocabulary, which tables of words are as long as."""
_COARSE = 16
"""Pixels over which a picture changes smoothly, so that it compresses as a photograph does."""


def write_pictures(folder: Path, size: tuple[int, int], count: int, seed: int) -> list[ImageRef]:
    """JPEG files of that width and height, smooth noise, none like the other."""
    width, height = size
    folder.mkdir(parents=True, exist_ok=True)
    refs = []
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        coarse = draw.integers(0, 256, (max(2, height // _COARSE), max(2, width // _COARSE), 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = (smooth + draw.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(noisy).save(path, quality=90)
        refs.append(ImageRef(path, str(number)))
    return refs


def sentences(count: int, words: int, seed: int) -> list[str]:
    """Texts of so many words, each one token of `made_up_vocabulary`."""
    chance = Random(f"{seed}/sentences")
    return [" ".join(f"w{chance.randrange(1000)}" for _ in range(words)) for _ in range(count)]


def made_up_vocabulary(folder: Path, max_length: int) -> TextEncoder:
    """A tokenizer with as many entries as bert-base-uncased, for models whose own is not at hand."""
    path = folder / "vocab.txt"
    letters = [f"{before}{letter}" for before in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    words = [f"w{number}" for number in range(WORDS - len(SPECIAL) - len(letters))]
    path.write_text("\n".join([*SPECIAL, *letters, *words]) + "\n", encoding="utf8")
    return TextEncoder.from_vocab(path, max_length)


class Decoded:
    """Pictures that were opened before, so that decoding is measured apart from what comes after it."""

    def __init__(self) -> None:
        self.pictures: dict[str, Image.Image] = {}

    def decode(self, refs: Sequence[ImageRef]) -> None:
        """Open them."""
        self.pictures = {ref.key: open_image(ref.path) for ref in refs}

    def open(self, ref: ImageRef) -> Image.Image:
        """The picture in RGB."""
        return self.pictures[ref.key]


class Detected:
    """The regions that the detector has just made."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.regions: dict[str, Regions] = {}

    def get(self, ref: ImageRef) -> Regions:
        """The picture's.

        Raises:
            VlbenchError: there are none.
        """
        if ref.key not in self.regions:
            raise VlbenchError(f"picture {ref.key} has no regions: profile with the detector, or a model without")
        return self.regions[ref.key]
