"""Pictures from files: whatever is inside, what comes out is 8-bit RGB, upright, on white."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef

MAX_PIXELS = 150_000_000
"""No benchmark's picture has as many; a file that claims more is damaged or hostile."""
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
"""What Pillow's decoders raise on damaged content."""
_REMEDY = "restore the file, or remove its examples"


def open_image(path: Path) -> Image.Image:
    """Read a picture as RGB.

    The content decides about the format, not the suffix. The EXIF orientation is applied, the first frame of an
    animation is taken, 16 bits are scaled to 8, and what is transparent shows white.

    Raises:
        DataError: the file is missing, empty, truncated, no picture, or claims more than 150 million pixels.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read the picture {path} ({error.strerror}): {_REMEDY}") from None
    if size == 0:
        raise DataError(f"the picture {path} is empty (0 bytes): {_REMEDY}")
    try:
        return _decoded(path)
    except UnidentifiedImageError:
        raise DataError(f"{path} is no picture ({size:,} bytes in none of {', '.join(_FORMATS)}): {_REMEDY}") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except _BROKEN as error:
        raise DataError(f"the picture {path} is truncated or damaged ({error}): {_REMEDY}") from None


class Pictures:
    """Opens pictures from their files."""

    def open(self, ref: ImageRef) -> Image.Image:
        """The picture in RGB. Raises DataError as `open_image` does."""
        return open_image(ref.path)


def mean_picture(paths: Sequence[Path]) -> Image.Image:
    """The mean of pictures, each brought to their mean size (at most 384 on a side) first.

    Raises:
        DataError: no paths, or a picture that cannot be read.
    """
    if not paths:
        raise DataError("a mean picture of 0 pictures was asked for: give at least one")
    total_size = np.zeros(2)
    for path in paths:
        total_size += open_image(path).size
    width, height = np.clip(np.rint(total_size / len(paths)), 1, 384).astype(int).tolist()
    total = np.zeros((height, width, 3), dtype=np.int64)
    for path in paths:
        total += np.asarray(open_image(path).resize((width, height), Image.Resampling.BOX), dtype=np.int64)
    return Image.fromarray(((2 * total + len(paths)) // (2 * len(paths))).astype(np.uint8))


def _too_large(path: Path) -> DataError:
    return DataError(f"the picture {path} claims more than {MAX_PIXELS:,} pixels: make it smaller, or {_REMEDY}")


def _decoded(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow's own bound is judged here; its remarks on odd metadata help nobody.
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no white: convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert copies what is RGB already


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Scale 0 to 65,535 to 0 to 255; Pillow's own conversion cuts everything above 255 off."""
    values = np.asarray(image).astype(np.int64).clip(0, 65_535)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
