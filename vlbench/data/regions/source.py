"""Where regions come from: stores first, then an extractor over the picture itself."""

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
from vlbench.data.regions.store import FeatureStore
from vlbench.data.regions.types import Extractor, Regions

_KEPT = 4096
"""How many pictures' extracted regions are kept in memory."""


class StoredRegions:
    """A RegionSource over stores and, for pictures in none of them, an extractor."""

    def __init__(self, stores: Sequence[FeatureStore], extractor: Extractor | None = None) -> None:
        """Take the stores in order of precedence.

        Raises:
            DataError: nothing to get regions from, or sources whose regions have different widths.
        """
        widths = {str(store.folder): store.dim for store in stores}
        if extractor is not None:
            widths[f"the extractor {extractor.name}"] = extractor.dim
        if not widths:
            raise DataError("there are no region features: give some, or extract them with `vlbench data features`")
        (first, self.dim), *others = widths.items()
        for name, dim in others:
            if dim != self.dim:
                raise DataError(
                    f"regions of {self.dim} numbers in {first} and of {dim} in {name} cannot be mixed: "
                    f"use features of one extractor only"
                )
        self.stores = tuple(stores)
        self.extractor = extractor
        self._extracted: dict[str, Regions] = {}

    def get(self, ref: ImageRef) -> Regions:
        """The regions of a picture: from the first store that has its key, else extracted.

        Raises:
            DataError: no store has them and there is no extractor, or the picture cannot be read.
        """
        for store in self.stores:
            if ref.key in store:
                return store.get(ref.key)
        if self.extractor is None:
            places = ", ".join(str(store.folder) for store in self.stores)
            raise DataError(f"no regions of {ref.key!r} in {places}: extract them with `vlbench data features`")
        if ref.key not in self._extracted:
            while len(self._extracted) >= _KEPT:
                del self._extracted[next(iter(self._extracted))]
            self._extracted[ref.key] = _extract(self.extractor, ref)
        return self._extracted[ref.key]


def extract_all(
    refs: Sequence[ImageRef],
    extractor: Extractor,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """The extractor's regions of all these pictures, made on all cores, once.

    Args:
        refs: the pictures; keys are unique.
        extractor: what describes them; its name is part of the store's.
        folder: the cache folder. The store lies below it, under a name made of the extractor and of the pictures'
            keys, paths, sizes and times; where it is there already nothing is extracted.
        progress: told pictures done and pictures to do.

    Raises:
        DataError: a picture that cannot be read, or a place that cannot be written; nothing half-written is left.
    """
    place = folder / "regions" / f"{extractor.name}-{_stamp(refs)[:32]}"
    if place.exists():
        return FeatureStore(place)
    return FeatureStore.build(place, _rows(refs, extractor, progress), source=f"extractor {extractor.name}")


def _rows(
    refs: Sequence[ImageRef], extractor: Extractor, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[str, Regions]]:
    made = parallel_map(partial(_extract, extractor), refs)
    for done, (ref, regions) in enumerate(zip(refs, made, strict=True), start=1):
        yield ref.key, regions
        if progress:
            progress(done, len(refs))


def _extract(extractor: Extractor, ref: ImageRef) -> Regions:
    return extractor(np.asarray(open_image(ref.path)))


def _stamp(refs: Sequence[ImageRef]) -> str:
    digest = hashlib.sha256()
    for ref in refs:
        try:
            seen = ref.path.stat()
        except OSError as error:
            raise DataError(
                f"cannot read the picture {ref.path} ({error.strerror}): restore the file, or remove its examples"
            ) from None
        digest.update(repr((ref.key, str(ref.path.absolute()), stamp(seen))).encode())
    return digest.hexdigest()
