"""Load images of any format as 8-bit RGB, upright, on a white background."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef
from vlbench.data.files.foreign import reading

MAX_PIXELS = 150_000_000
"""More than any benchmark's image has; a file that claims more is damaged or malicious."""
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
_SHALLOW = {"L;2": 85, "L;4": 17}
"""By Pillow's name for grey of 2 or 4 bits: the factor that scales it to 8 bits."""
_REMEDY = "restore the file, or remove its examples"


def open_image(path: Path) -> Image.Image:
    """Read an image as RGB.

    The format is detected from the content, not the suffix. The EXIF orientation is applied, an animation gives its
    first frame, 16 bits are scaled to 8, and transparent pixels are composited on white. Raises DataError if the file
    is missing, empty, truncated, not an image, or claims more than 150 million pixels.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read the image {path} ({error.strerror}): {_REMEDY}") from None
    if size == 0:
        raise DataError(f"the image {path} is empty (0 bytes): {_REMEDY}")
    with reading(path, "is a truncated or damaged image", _REMEDY):
        try:
            return _decoded(path)
        except UnidentifiedImageError:
            raise DataError(
                f"{path} is not an image ({size:,} bytes in none of {', '.join(_FORMATS)}): {_REMEDY}"
            ) from None
        except Image.DecompressionBombError:
            raise _too_large(path) from None


class ImageFiles:
    """Opens images from their files with `open_image`."""

    def open(self, ref: ImageRef) -> Image.Image:
        return open_image(ref.path)


def mean_image(paths: Sequence[Path]) -> Image.Image:
    """Return the mean of one or more images, each first resized to their mean size (at most 384 pixels per side)."""
    total_size = np.zeros(2)
    for path in paths:
        total_size += open_image(path).size
    width, height = np.clip(np.rint(total_size / len(paths)), 1, 384).astype(int).tolist()
    total = np.zeros((height, width, 3), dtype=np.int64)
    for path in paths:
        total += np.asarray(open_image(path).resize((width, height), Image.Resampling.BOX), dtype=np.int64)
    return Image.fromarray(((2 * total + len(paths)) // (2 * len(paths))).astype(np.uint8))


def _too_large(path: Path) -> DataError:
    return DataError(f"the image {path} claims more than {MAX_PIXELS:,} pixels: make it smaller, or {_REMEDY}")


def _decoded(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow's limit is checked here; its warnings about unusual metadata do not help users.
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path)
            _scale_transparency(image)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)


def _scale_transparency(image: ImageFile.ImageFile) -> None:
    """Express a PNG's transparent colour in the values of the decoded pixels; Pillow leaves it in those of the file."""
    colour = image.info.get("transparency")
    if image.format != "PNG" or colour is None or not image.tile:
        return
    layout = str(image.tile[0][3])
    if layout in _SHALLOW:
        image.info["transparency"] = colour * _SHALLOW[layout]
    elif layout == "RGB;16B":  # of which Pillow decodes 8 bits, so near colours would become transparent too
        raise ValueError("a transparent colour of 16 bits per channel: convert it to 8 bits or to an alpha channel")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined white: convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy an RGB image


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Scale [0, 65,535] to [0, 255]; Pillow's own conversion clips everything above 255, and has no transparency."""
    values = np.asarray(image).astype(np.int64).clip(0, 65_535)
    if "transparency" in image.info:
        values[values == image.info["transparency"]] = 65_535
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
