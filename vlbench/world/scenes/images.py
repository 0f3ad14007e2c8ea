"""Render each scene once, write the PNG files that show it and describe its regions from the pixels, on all cores."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlbench.core.domain import Domain
from vlbench.data.parallel import parallel_map
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.tsv import write_tsv
from vlbench.data.regions.types import Regions
from vlbench.world.output import ProgressCallback, with_progress
from vlbench.world.rng import stream
from vlbench.world.scenes.detector_noise import with_labels
from vlbench.world.scenes.render import render_scene
from vlbench.world.scenes.scene import Scene

_BLOCK = 0xFFFF
"""Most bytes in one stored block of a zlib stream."""


@dataclass(frozen=True, slots=True)
class SceneImage:
    """A scene, the path its image is written to, and the key of its regions."""

    scene: Scene
    path: Path
    key: str


class ImagePlan:
    """The images to make; many scenes are shown by several of them, with the same pixels and the same regions."""

    def __init__(self) -> None:
        self._by_tsv: dict[Path, Sequence[SceneImage]] = {}

    def add(self, tsv: Path, images: Sequence[SceneImage]) -> None:
        """Add images whose regions belong into one TSV, in this order."""
        self._by_tsv[tsv] = images

    def make(self, domain: Domain, seed: int, progress: ProgressCallback) -> None:
        """Write all images and region features; missing folders are created."""
        scenes: dict[str, _ShownScene] = {}
        for images in self._by_tsv.values():
            for image in images:
                scenes.setdefault(image.scene.id, _ShownScene(image.scene, [])).paths.append(image.path)
        for folder in {path.parent for shown in scenes.values() for path in shown.paths}:
            folder.mkdir(parents=True, exist_ok=True)
        made = parallel_map(partial(_make_images, domain, seed), list(scenes.values()))
        regions = dict(zip(scenes, with_progress(made, len(scenes), "images", progress), strict=True))
        for tsv, images in self._by_tsv.items():
            write_tsv(tsv, ((image.key, regions[image.scene.id]) for image in images))


@dataclass(frozen=True, slots=True)
class _ShownScene:
    """A scene and the paths of all images that show it."""

    scene: Scene
    paths: list[Path]


def _make_images(domain: Domain, seed: int, shown: _ShownScene) -> Regions:
    """Write the images of a scene; return its regions."""
    pixels = render_scene(shown.scene, domain, seed)
    png = encode_png(pixels)
    for path in shown.paths:
        path.write_bytes(png)
    return with_labels(FlatExtractor()(pixels), stream(seed, "labels", domain, shown.scene.id))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """An RGB image [H, W, 3] as an 8-bit truecolour PNG (PNG specification, sections 11.2 and 11.3).

    The pixels are stored uncompressed, because builds of zlib compress the same bytes differently.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # the leading 0 of each row: no filter
    rows[:, 1:] = pixels.reshape(height, width * 3)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", _zlib_stored(rows.tobytes())) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _zlib_stored(content: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950, RFC 1951 section 3.2.4)."""
    blocks = [content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
    encoded = b"\x78\x01"
    for number, block in enumerate(blocks, start=1):
        encoded += struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ _BLOCK) + block
    return encoded + struct.pack(">I", zlib.adler32(content))
