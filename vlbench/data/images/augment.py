"""RandAugment: a few random changes of a training image that preserve its content, and random image sizes.

Colours are not inverted and nothing is cut out, since texts mention colours and small objects.
Source: Cubuk et al. 2020 (arXiv 1909.13719); the operations and their strengths: Kim et al. 2021 (ViLT), official code.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

CHANGES, MAGNITUDE, STRONGEST = 2, 9, 30
"""Changes per image, and their strength on a scale from 0 to 30."""
_HALF = 128


def randaugment(image: Image.Image, rng: Random, changes: int = CHANGES, magnitude: float = MAGNITUDE) -> Image.Image:
    """Apply `changes` random `OPERATIONS`, drawn with replacement, to an RGB image; its size stays the same.

    magnitude: in [0, 30]. The direction of shifts, shears and rotations is random; uncovered pixels are black.
    """
    for name in rng.choices(list(OPERATIONS), k=changes):
        operation, weakest, strongest = OPERATIONS[name]
        image = operation(image, weakest + (strongest - weakest) * magnitude / STRONGEST, rng)
    return image


def _auto_contrast(image: Image.Image, _: float, __: Random) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, _: float, __: Random) -> Image.Image:
    return ImageOps.equalize(image)


def _rotate(image: Image.Image, degrees: float, rng: Random) -> Image.Image:
    return image.rotate(_random_sign(degrees, rng))


def _posterize(image: Image.Image, bits: float, _: Random) -> Image.Image:
    return ImageOps.posterize(image, max(1, int(bits)))


def _solarize(image: Image.Image, threshold: float, _: Random) -> Image.Image:
    return ImageOps.solarize(image, int(threshold))


def _solarize_add(image: Image.Image, addition: float, _: Random) -> Image.Image:
    """Brighten, then invert the values above half."""
    brighter = np.clip(np.asarray(image).astype(np.int64) + int(addition), 0, 255).astype(np.uint8)
    return ImageOps.solarize(Image.fromarray(brighter), _HALF)


def _color(image: Image.Image, factor: float, _: Random) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _contrast(image: Image.Image, factor: float, _: Random) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _brightness(image: Image.Image, factor: float, _: Random) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _sharpness(image: Image.Image, factor: float, _: Random) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(factor)


def _shear_x(image: Image.Image, fraction: float, rng: Random) -> Image.Image:
    return _transform(image, (1, _random_sign(fraction, rng), 0, 0, 1, 0))


def _shear_y(image: Image.Image, fraction: float, rng: Random) -> Image.Image:
    return _transform(image, (1, 0, 0, _random_sign(fraction, rng), 1, 0))


def _translate_x(image: Image.Image, pixels: float, rng: Random) -> Image.Image:
    return _transform(image, (1, 0, _random_sign(pixels, rng), 0, 1, 0))


def _translate_y(image: Image.Image, pixels: float, rng: Random) -> Image.Image:
    return _transform(image, (1, 0, 0, 0, 1, _random_sign(pixels, rng)))


def _transform(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def _random_sign(value: float, rng: Random) -> float:
    return value if rng.random() < 0.5 else -value


def drawn_size(width: int, height: int, low: int, high: int, longest: int, rng: Random) -> tuple[int, int]:
    """Return a random size (width, height) of an image in pixels, each at least 1; the aspect ratio is kept.

    low, high: the short side is drawn uniformly from the integers in [low, high]. longest: the limit of the long side;
    the short side becomes smaller than the one drawn where the limit requires it.

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
"""Name -> function, and its strength at magnitudes 0 and 30 (degrees, bits, grey levels, factors, fractions, pixels)"""
