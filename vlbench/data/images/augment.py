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


def randaugment(image: Image.Image, rng: Random) -> Image.Image:
    """Apply `CHANGES` random `OPERATIONS`, drawn with replacement, to an RGB image; its size stays the same.

    The direction of shifts, shears and rotations is random; uncovered pixels are black.
    """
    for name in rng.choices(list(OPERATIONS), k=CHANGES):
        operation, weakest, strongest = OPERATIONS[name]
        image = operation(image, weakest + (strongest - weakest) * MAGNITUDE / STRONGEST, rng)
    return image


def _solarize_add(image: Image.Image, addition: float, _: Random) -> Image.Image:
    """Brighten, then invert the values above half."""
    brighter = np.clip(np.asarray(image).astype(np.int64) + int(addition), 0, 255).astype(np.uint8)
    return ImageOps.solarize(Image.fromarray(brighter), _HALF)


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
    "auto_contrast": (lambda image, _, __: ImageOps.autocontrast(image), 0, 1),
    "equalize": (lambda image, _, __: ImageOps.equalize(image), 0, 1),
    "rotate": (lambda image, degrees, rng: image.rotate(_random_sign(degrees, rng)), 0, 30),
    "posterize": (lambda image, bits, _: ImageOps.posterize(image, max(1, int(bits))), 0, 4),
    "solarize": (lambda image, threshold, _: ImageOps.solarize(image, int(threshold)), 0, 256),
    "solarize_add": (_solarize_add, 0, 110),
    "color": (lambda image, factor, _: ImageEnhance.Color(image).enhance(factor), 0.1, 1.9),
    "contrast": (lambda image, factor, _: ImageEnhance.Contrast(image).enhance(factor), 0.1, 1.9),
    "brightness": (lambda image, factor, _: ImageEnhance.Brightness(image).enhance(factor), 0.1, 1.9),
    "sharpness": (lambda image, factor, _: ImageEnhance.Sharpness(image).enhance(factor), 0.1, 1.9),
    "shear_x": (lambda image, slope, rng: _transform(image, (1, _random_sign(slope, rng), 0, 0, 1, 0)), 0, 0.3),
    "shear_y": (lambda image, slope, rng: _transform(image, (1, 0, 0, _random_sign(slope, rng), 1, 0)), 0, 0.3),
    "translate_x": (lambda image, pixels, rng: _transform(image, (1, 0, _random_sign(pixels, rng), 0, 1, 0)), 0, 100),
    "translate_y": (lambda image, pixels, rng: _transform(image, (1, 0, 0, 0, 1, _random_sign(pixels, rng))), 0, 100),
}
"""Name -> function, and its strength at magnitudes 0 and 30 (degrees, bits, grey levels, factors, slopes, pixels)."""
