"""Extract regions with a slow extractor and cache them image by image, so that an interrupted run can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef
from vlbench.data.cache.folder import CannotWrite, file_sha256
from vlbench.data.images.load import open_image
from vlbench.data.regions.tsv import read_tsv, write_tsv
from vlbench.data.regions.types import Extractor, Regions


def extract_each(
    refs: Sequence[ImageRef], extractor: Extractor, cache: Path, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[str, Regions]]:
    """Yield the key and regions of each image, in order, extracted one by one in this process.

    Entries in the `cache` folder are named by the extractor's name and the hash of the image file. progress: called
    with the number of images done and of all images. Without a cache that can be written, nothing is resumed. Raises
    DataError if an image cannot be read.
    """
    for done, ref in enumerate(refs, start=1):
        sha256 = file_sha256(ref.path, cache)
        path = cache / "regions" / extractor.name / sha256[:2] / f"{sha256}.tsv"
        regions = _read_cached(path)
        if regions is None:
            regions = extractor(np.asarray(open_image(ref.path)))
            with suppress(CannotWrite):  # no lock: all processes write the same regions under the same name
                write_tsv(path, [(sha256, regions)])
        yield ref.key, regions
        if progress:
            progress(done, len(refs))


def _read_cached(path: Path) -> Regions | None:
    """The cached regions; None if there is no entry or it is damaged."""
    try:
        return next((regions for _, regions in read_tsv(path)), None)
    except DataError:
        return None
