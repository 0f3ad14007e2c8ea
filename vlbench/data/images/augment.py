"""RandAugment: a few random changes of an image that leave what it shows, and random sizes, for training.

Colours are not inverted and nothing is cut out, since texts speak of colours and of small things.
Source: Cubuk et al. 2020 (arXiv 1909.13719); which changes and how strong, Kim et al. 2021 (ViLT), official code.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

CHANGES, MAGNITUDE, STRONGEST = 2, 9, 30
"""Changes of one picture, and how strong they are on a scale from 0 to 30."""
_HALF = 128


def randaugment(picture: Image.Image, rng: Random, changes: int = CHANGES, magnitude: float = MAGNITUDE) -> Image.Image:
    """Change an RGB picture `changes` times, each time by one of `OPERATIONS` drawn anew; its size stays.

    magnitude: in [0, 30]. What moves or turns does so either way, by chance; what comes in from outside is black.
    """
    for name in rng.choices(list(OPERATIONS), k=changes):
        operation, weakest, strongest = OPERATIONS[name]
        picture = operation(picture, weakest + (strongest - weakest) * magnitude / STRONGEST, rng)
    return picture


def _auto_contrast(picture: Image.Image, _: float, __: Random) -> Image.Image:
    return ImageOps.autocontrast(picture)


def _equalize(picture: Image.Image, _: float, __: Random) -> Image.Image:
    return ImageOps.equalize(picture)


def _rotate(picture: Image.Image, degrees: float, rng: Random) -> Image.Image:
    return picture.rotate(_either(degrees, rng))


def _posterize(picture: Image.Image, bits: float, _: Random) -> Image.Image:
    return ImageOps.posterize(picture, max(1, int(bits)))


def _solarize(picture: Image.Image, threshold: float, _: Random) -> Image.Image:
    return ImageOps.solarize(picture, int(threshold))


def _solarize_add(picture: Image.Image, addition: float, _: Random) -> Image.Image:
    """Brighten, then invert what is above half."""
    brighter = np.clip(np.asarray(picture).astype(np.int64) + int(addition), 0, 255).astype(np.uint8)
    return ImageOps.solarize(Image.fromarray(brighter), _HALF)


def _color(picture: Image.Image, factor: float, _: Random) -> Image.Image:
    return ImageEnhance.Color(picture).enhance(factor)


def _contrast(picture: Image.Image, factor: float, _: Random) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(factor)


def _brightness(picture: Image.Image, factor: float, _: Random) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(factor)


def _sharpness(picture: Image.Image, factor: float, _: Random) -> Image.Image:
    return ImageEnhance.Sharpness(picture).enhance(factor)


def _shear_x(picture: Image.Image, share: float, rng: Random) -> Image.Image:
    return _moved(picture, (1, _either(share, rng), 0, 0, 1, 0))


def _shear_y(picture: Image.Image, share: float, rng: Random) -> Image.Image:
    return _moved(picture, (1, 0, 0, _either(share, rng), 1, 0))


def _translate_x(picture: Image.Image, pixels: float, rng: Random) -> Image.Image:
    return _moved(picture, (1, 0, _either(pixels, rng), 0, 1, 0))


def _translate_y(picture: Image.Image, pixels: float, rng: Random) -> Image.Image:
    return _moved(picture, (1, 0, 0, 0, 1, _either(pixels, rng)))


def _moved(picture: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix)


def _either(value: float, rng: Random) -> float:
    return value if rng.random() < 0.5 else -value


def drawn_size(width: int, height: int, low: int, high: int, longest: int, rng: Random) -> tuple[int, int]:
    """A random size of an image, its proportions kept, as (width, height) in pixels, each at least 1.

    low, high: the short side is drawn uniformly from these and all whole numbers between them. longest: of the long
    side, which a smaller short side than the one drawn may have to make room for.

    Source: the multi-scale training of SOHO's released VQA recipe (`Resize` with a range of scales, as in mmdetection).
    """
    short, long = sorted((width, height))
    scale = min(rng.randint(low, high) / short, longest / long)
    return max(1, round(width * scale)), max(1, round(height * scale))


Operation = Callable[[Image.Image, float, Random], Image.Image]
OPERATIONS: dict[str, tuple[Operation, float, float]] = {
    "auto_contrast": (_auto_contrast, 0, 1),
    "equalize": (_equalize, 0, 1),
    "rotate": (_rotate, 0, 30),
    "posterize": (_posterize, 0, 4),
    "solarize": (_solarize, 0, 256),
    "solarize_add": (_solarize_add, 0, 110),
    "color": (_color, 0.1, 1.9),
    "contrast": (_contrast, 0.1, 1.9),
    "brightness": (_brightness, 0.1, 1.9),
    "sharpness": (_sharpness, 0.1, 1.9),
    "shear_x": (_shear_x, 0, 0.3),
    "shear_y": (_shear_y, 0, 0.3),
    "translate_x": (_translate_x, 0, 100),
    "translate_y": (_translate_y, 0, 100),
}
"""Name: what it does, and its strength at magnitudes 0 and 30 (degrees, bits, grey levels, factors, shares, pixels)."""
