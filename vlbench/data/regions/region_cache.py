"""Regions that cost seconds a picture: each is kept as soon as it is there, so that an interrupted work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef
from vlbench.data.cache.folder import file_sha256
from vlbench.data.images.load import open_image
from vlbench.data.regions.tsv import read_tsv, write_tsv
from vlbench.data.regions.types import Extractor, Regions


def extract_each(
    refs: Sequence[ImageRef],
    extractor: Extractor,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[str, Regions]]:
    """Key and regions of each picture, in order, made one by one in this process.

    Args:
        refs: the pictures.
        extractor: what describes them; its name and the hash of a picture's file are what its regions are kept under.
        cache: the cache folder.
        progress: told pictures done and pictures to do.

    Raises:
        DataError: a picture that cannot be read, or a place that cannot be written.
    """
    for done, ref in enumerate(refs, start=1):
        sha256 = file_sha256(ref.path, cache)
        place = cache / "regions" / extractor.name / sha256[:2] / f"{sha256}.tsv"
        yield ref.key, _kept(place) or _made(place, sha256, extractor, ref.path)
        if progress:
            progress(done, len(refs))


def _kept(place: Path) -> Regions | None:
    """None where nothing was kept, or what was is damaged."""
    try:
        return next((regions for _, regions in read_tsv(place)), None) if place.is_file() else None
    except DataError:
        return None


def _made(place: Path, sha256: str, extractor: Extractor, path: Path) -> Regions:
    regions = extractor(np.asarray(open_image(path)))
    write_tsv(place, [(sha256, regions)])
    return regions
