"""Draw the pictures an exporter asks for and describe their regions from the pixels, on all cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vlbench.core.domain import Domain
from vlbench.data.parallel import parallel_map
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.types import Regions
from vlbench.world.rng import stream
from vlbench.world.scenes.detector_noise import with_labels
from vlbench.world.scenes.draw import draw
from vlbench.world.scenes.png import encode_png
from vlbench.world.scenes.scene import Scene


@dataclass(frozen=True, slots=True)
class Picture:
    """A scene, the file its picture goes to, and the key of its regions."""

    scene: Scene
    file: Path
    key: str


def make_pictures(pictures: Sequence[Picture], domain: Domain, seed: int) -> Iterator[tuple[str, Regions]]:
    """Write each picture and yield its key and regions, in order. The files' folders are made."""
    for folder in {picture.file.parent for picture in pictures}:
        folder.mkdir(parents=True, exist_ok=True)
    return parallel_map(partial(_make, domain, seed), pictures)


def _make(domain: Domain, seed: int, picture: Picture) -> tuple[str, Regions]:
    pixels = draw(picture.scene, domain, seed)
    picture.file.write_bytes(encode_png(pixels))
    return picture.key, with_labels(FlatExtractor()(pixels), stream(seed, "labels", domain, picture.scene.id))
