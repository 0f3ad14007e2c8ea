"""Get regions from stores, or else from an extractor; extract the regions of many images on all cores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef
from vlbench.data.cache.folder import stamp
from vlbench.data.images.load import open_image
from vlbench.data.parallel import parallel_map
from vlbench.data.regions.store import FeatureStore, cached_store
from vlbench.data.regions.types import Extractor, Regions

_CACHED_IMAGES = 4096
"""The number of images whose extracted regions are cached in memory."""


class StoredRegions:
    """A RegionSource over stores, with an extractor for images that are in none of them.

    stores: in order of precedence. dim: features per region. Raises DataError if there is no source, or sources have
    different numbers of features.
    """

    def __init__(self, stores: Sequence[FeatureStore], extractor: Extractor | None = None) -> None:
        dims = {str(store.folder): store.dim for store in stores}
        if extractor is not None:
            dims[f"the extractor {extractor.name}"] = extractor.dim
        if not dims:
            raise DataError("there are no region features: give some, or extract them with `vlbench data features`")
        (first, self.dim), *others = dims.items()
        for name, dim in others:
            if dim != self.dim:
                raise DataError(
                    f"{self.dim} features per region in {first} and {dim} in {name} cannot be mixed: "
                    f"use features of one extractor only"
                )
        self.stores = tuple(stores)
        self.extractor = extractor
        self._extracted: dict[str, Regions] = {}

    def get(self, ref: ImageRef) -> Regions:
        """Return the regions of an image: from the first store that has its key, else from the extractor.

        Raises DataError if no store has them and there is no extractor, or the image cannot be read.
        """
        for store in self.stores:
            if ref.key in store:
                return store.get(ref.key)
        if self.extractor is None:
            folders = ", ".join(str(store.folder) for store in self.stores)
            raise DataError(f"no regions of {ref.key!r} in {folders}: extract them with `vlbench data features`")
        if ref.key not in self._extracted:
            while len(self._extracted) >= _CACHED_IMAGES:
                del self._extracted[next(iter(self._extracted))]
            self._extracted[ref.key] = _extract(self.extractor, ref)
        return self._extracted[ref.key]


def extract_all(
    refs: Sequence[ImageRef],
    extractor: Extractor,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[], None] | None = None,
) -> FeatureStore:
    """Extract the regions of all images, whose keys are unique, on all cores into a store in the cache `folder`.

    The name of the store is made of the extractor's name and a hash of the images' keys, paths, sizes and times; an
    existing store is returned without extraction. progress: called with the number of images done and of all images.
    on_wait: called once if another process extracts the same regions.
    Raises DataError if an image cannot be read, or the cache cannot be written; no partial store is left.
    """
    path = folder / "regions" / f"{extractor.name}-{_hash_refs(refs)[:32]}"

    def rows() -> Iterator[tuple[str, Regions]]:
        return zip((ref.key for ref in refs), parallel_map(partial(_extract, extractor), refs, progress), strict=True)

    return cached_store(path, rows, f"extractor {extractor.name}", on_wait)


def _extract(extractor: Extractor, ref: ImageRef) -> Regions:
    return extractor(np.asarray(open_image(ref.path)))


def _hash_refs(refs: Sequence[ImageRef]) -> str:
    digest = hashlib.sha256()
    for ref in refs:
        try:
            status = ref.path.stat()
        except OSError as error:
            raise DataError(
                f"cannot read the image {ref.path} ({error.strerror}): restore the file, or remove its examples"
            ) from None
        digest.update(repr((ref.key, str(ref.path.absolute()), stamp(status))).encode())
    return digest.hexdigest()
