"""Decode JPEG files with simplejpeg where it is installed (the extra `jpeg`): the pixels of Pillow in less time."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

from PIL import ExifTags, Image, ImageFile

try:
    import simplejpeg  # type: ignore[import-untyped]
except ImportError:  # not installed, or built for another version of numpy
    simplejpeg = None


@cache
def jpeg_decoder() -> str:
    """The decoder of JPEG files other than Pillow, as `simplejpeg 1.9.0`; empty if there is none."""
    return f"simplejpeg {metadata.version('simplejpeg')}" if simplejpeg is not None else ""


def decode_jpeg(path: Path, opened: ImageFile.ImageFile) -> Image.Image | None:
    """The RGB image of a JPEG file that Pillow has opened and not yet decoded; None for a file that Pillow must decode.

    Those are files of other formats, grey, CMYK, stored rotated or mirrored, or with any fault, however small: Pillow
    alone decides which faults it tolerates, and its errors are those that users see.
    """
    if simplejpeg is None or opened.format != "JPEG" or opened.mode != "RGB":
        return None
    if opened.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return None
    content = path.read_bytes()
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
        if (width, height) != opened.size or space != "YCbCr":
            return None
        # Pillow keeps four bytes per pixel, so this copy is cheaper than that of `Image.fromarray`.
        return Image.frombytes("RGB", opened.size, simplejpeg.decode_jpeg(content, "RGBX"), "raw", "RGBX")
    except ValueError:
        return None
