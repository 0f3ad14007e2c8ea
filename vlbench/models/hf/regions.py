"""Regions as transformers' models take them: features, and boxes as shares of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vlbench.core.backbone import Tensors
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.resources import Resources
from vlbench.models.hf.pretrained import Source


class RegionEyes:
    """The regions of pictures.

    Raises:
        VlbenchError: there are none, or their features have another width than the network was trained on.
    """

    def __init__(self, resources: Resources, source: Source) -> None:
        if resources.regions is None:
            raise VlbenchError(
                f"{source.name} looks at regions and was given none: give region features or an extractor"
            )
        wanted = next(
            int(getattr(source.config, name))
            for name in ("visual_feat_dim", "visual_embedding_dim")
            if hasattr(source.config, name)
        )
        if resources.regions.dim != wanted:
            raise VlbenchError(
                f"{source.name} looks at region features of {wanted} numbers, and those of the data have "
                f"{resources.regions.dim}: give the features it was trained on, as TSV files below --data-root"
            )
        self.source, self.dim = resources.regions, wanted

    def __call__(self, refs: Sequence[ImageRef]) -> Tensors:
        """features [N, R, F] float32, boxes [N, R, 4] as shares of width and height, mask [N, R] bool.

        Raises:
            DataError: a picture without regions.
        """
        found = [self.source.get(ref) for ref in refs]
        counts = np.array([len(regions.boxes) for regions in found])
        if not counts.all():
            empty = refs[int(np.flatnonzero(counts == 0)[0])].key
            raise DataError(f"picture {empty!r} has 0 regions where at least 1 is needed: extract its features again")
        features = np.zeros((len(refs), counts.max(initial=0), self.dim), np.float32)
        boxes = np.zeros((len(refs), counts.max(initial=0), 4), np.float32)
        for row, regions in enumerate(found):
            features[row, : counts[row]] = regions.features
            boxes[row, : counts[row]] = regions.boxes / np.array([regions.width, regions.height] * 2)
        return {
            "features": torch.from_numpy(features),
            "boxes": torch.from_numpy(boxes),
            "mask": torch.from_numpy(np.arange(features.shape[1]) < counts[:, None]),
        }
