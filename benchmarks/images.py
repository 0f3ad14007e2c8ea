"""CPU time of ViLT's image pipeline (384 to 640 pixels), with simplejpeg and with Pillow as a user would call it.

Run as `python benchmarks/images.py`, with the extra `jpeg` installed. Both sides read the same JPEG files in one
process, in turn, and resize, cut and stack them by the same code; only the decoding differs. The files are generated:
noise at several scales, of COCO's usual sizes and bytes per pixel.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sides import IMAGE_SIZES, Side, format_spread, measure, paired_ratios

from vlbench.core.examples import ImageRef
from vlbench.data.images.image_cache import resized
from vlbench.data.images.jpeg import jpeg_decoder
from vlbench.data.images.load import ImageFiles
from vlbench.data.images.patches import StackedPatches, fitted, in_patches, stack
from vlbench.data.resources import ImageSource

SHORT_SIDE, LONG_SIDE, PATCH = 384, 640, 32
IMAGES, QUALITY = 32, 90
_SCALES = ((1, 0.15), (4, 0.25), (32, 0.6))
"""Pixels of a grain of noise, and its share of the image."""


class PillowFiles:
    """Opens images as users of Pillow do."""

    def open(self, ref: ImageRef) -> Image.Image:
        """The image in RGB."""
        with Image.open(ref.path) as image:
            return image.convert("RGB")


def main() -> None:
    """Check that both sides agree, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    seconds = timings(parser.parse_args().repeats)
    for name, taken in seconds.items():
        print(f"{name}: {format_spread([1e3 * value / IMAGES for value in taken])} CPU-ms per image")
    print(f"Pillow / {jpeg_decoder()}: {format_spread(paired_ratios(seconds))}")


def ratios(repeats: int) -> dict[str, list[float]]:
    """Pillow's time over that of the same pipeline with simplejpeg, for each repeat."""
    return {"image pipeline, Pillow / simplejpeg": paired_ratios(timings(repeats))}


def timings(repeats: int) -> dict[str, list[float]]:
    """CPU seconds of both sides for `IMAGES` files. Stops if their pixels differ or simplejpeg is not installed."""
    if not jpeg_decoder():
        raise SystemExit("simplejpeg is not installed: run `pip install 'vlbench[jpeg]'`")
    with tempfile.TemporaryDirectory() as folder:
        refs = [write_photograph(Path(folder) / f"{number}.jpg", number) for number in range(IMAGES)]
        sides: dict[str, Side] = {
            "Pillow": lambda: prepare(PillowFiles(), refs),
            "simplejpeg": lambda: prepare(ImageFiles(), refs),
        }
        pillow, ours = prepare(PillowFiles(), refs), prepare(ImageFiles(), refs)
        if not np.array_equal(pillow.pixels, ours.pixels):
            raise SystemExit("the sides differ in their pixels")
        return measure(sides, repeats)


def write_photograph(path: Path, seed: int) -> ImageRef:
    """Write an image of noise at several scales, which compresses about as a photograph does."""
    width, height = IMAGE_SIZES[seed % len(IMAGE_SIZES)]
    rng, pixels = np.random.default_rng(seed), np.zeros((height, width, 3))
    for grain, share in _SCALES:
        noise = rng.integers(0, 256, (height // grain + 1, width // grain + 1, 3), np.uint8)
        pixels += share * np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
    Image.fromarray(pixels.astype(np.uint8)).save(path, "JPEG", quality=QUALITY)
    return ImageRef(path, path.stem)


def prepare(images: ImageSource, refs: list[ImageRef]) -> StackedPatches:
    """Decode, resize, cut and stack images as ViLT's `prepare_images` does."""
    sides = (SHORT_SIDE, LONG_SIDE, PATCH)
    rule = "bicubic {} {} {}".format(*sides)
    pixels = [resized(images, ref, lambda width, height: fitted(width, height, *sides), rule) for ref in refs]
    return stack([in_patches(image, PATCH) for image in pixels], PATCH)


if __name__ == "__main__":
    main()
