"""Regions as tensors.

Shapes: N images, R regions, F numbers per region.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlbench.core.backbone import Tensors
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.regions.types import Regions, RegionSource
from vlbench.data.resources import Resources
from vlbench.models.layers.attention import with_keys


def region_source(resources: Resources, name: str) -> RegionSource:
    """Return the regions of `resources`; without any, raise VlbenchError that the model `name` needs them."""
    if resources.regions is None:
        raise VlbenchError(f"{name} needs regions and was given none: give region features or an extractor")
    return resources.regions


def load_regions(source: RegionSource, ref: ImageRef) -> Regions:
    """Load the regions of an image; raise DataError if it has none."""
    regions = source.get(ref)
    if not len(regions.boxes):
        raise DataError(f"image {ref.key!r} has 0 regions where at least 1 is needed: extract its features again")
    return regions


def region_tensors(regions: Sequence[Regions], dim: int) -> Tensors:
    """Collate the regions of N images, padded with zeros to the largest number of regions.

    Returns: features [N, R, F] float32, F being `dim`; boxes [N, R, 4] float32 in [0, 1], relative to the image's width
        and height; mask [N, R] bool, True where a region is real; and as `with_keys`.
    """
    boxes, mask = padded_rows([relative_boxes(part) for part in regions], 4)
    features = padded_rows([part.features for part in regions], dim)[0]
    return with_keys({"features": features, "boxes": boxes, "mask": mask})


def relative_boxes(regions: Regions) -> NDArray[np.float32]:
    """The boxes [R, 4] in [0, 1], relative to the image's width and height."""
    boxes: NDArray[np.float32] = (regions.boxes / np.array([regions.width, regions.height] * 2)).astype(np.float32)
    return boxes


def padded_rows(arrays: Sequence[NDArray[np.float32]], width: int) -> tuple[Tensor, Tensor]:
    """Stack N arrays [R_n, width] to [N, R, width], R being the largest R_n, and the mask [N, R] of real rows."""
    counts = np.array([len(array) for array in arrays], np.int64)
    padded = np.zeros((len(arrays), counts.max(initial=0), width), np.float32)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return torch.from_numpy(padded), torch.from_numpy(np.arange(padded.shape[1]) < counts[:, None])
