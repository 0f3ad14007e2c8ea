"""CVLP as a backbone: regions and texts to tensors, tensors to features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.core.validate import parse
from vlbench.data.regions.types import RegionSource
from vlbench.data.resources import Resources
from vlbench.models.cvlp.modeling import CVLPConfig, QueryNetwork
from vlbench.models.layers.standardise import Standardise

FITTED_ON = 4096
"""Training pictures that the scale of region features is measured on."""


class CVLP(nn.Module):
    """The query network with its doors to the data; its shapes are those of `core.backbone`.

    Raises:
        VlbenchError: no regions in `resources`, or texts longer than the network has positions for.
    """

    def __init__(self, config: CVLPConfig, resources: Resources) -> None:
        super().__init__()
        longest = resources.text.max_length
        if longest > config.positions:
            raise VlbenchError(
                f"texts of up to {longest} tokens do not fit CVLP's {config.positions} positions: "
                f"use a tokenizer with a max_length of at most {config.positions}"
            )
        self.config = config
        self.width = config.width
        self.text = resources.text
        self.regions = _regions(resources)
        self.standardise = Standardise(config.region_dim) if config.standardise else nn.Identity()
        self.network = QueryNetwork(config)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build one of the card's sizes, untrained, with the vocabulary and the regions of `resources`.

        Raises:
            VlbenchError: faulty numbers in the card, or what the class refuses.
        """
        data = {"vocab_size": resources.text.vocab_size, "region_dim": _regions(resources).dim}
        config = parse(CVLPConfig, {**card.sizes[size].config, **data}, f"size {size!r} of model {card.name!r}")
        return cls(config, resources)

    def fit(self, refs: Sequence[ImageRef]) -> None:
        """Measure mean and deviation of the region features, where the size standardises them."""
        if isinstance(self.standardise, Standardise):
            features = np.concatenate([self._look(ref)[0] for ref in refs[:FITTED_ON]])
            self.standardise.fit(torch.from_numpy(features))

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """The pictures' regions, padded with zeros to the largest number of them in this batch.

        Returns: features [N, R, F] float32; boxes [N, R, 4] float32, x as a share of the picture's width and
            y of its height; mask [N, R] bool.

        Raises:
            DataError: a picture without regions.
        """
        found = [self._look(ref) for ref in refs]
        counts = np.array([len(boxes) for _, boxes in found])
        return {
            "features": _padded([features for features, _ in found], self.config.region_dim),
            "boxes": _padded([boxes for _, boxes in found], 4),
            "mask": torch.from_numpy(np.arange(counts.max(initial=0)) < counts[:, None]),
        }

    def _look(self, ref: ImageRef) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The features [R, F] and relative boxes [R, 4] of the first regions of a picture."""
        regions = self.regions.get(ref)
        if not len(regions.boxes):
            raise DataError(f"picture {ref.key!r} has 0 regions where at least 1 is needed: extract its features again")
        size = np.array([regions.width, regions.height] * 2)
        boxes = (regions.boxes / size).astype(np.float32)
        return regions.features[: self.config.max_regions], boxes[: self.config.max_regions]

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """The texts' tokens, cut to the longest text in this batch: ids [M, T] int64, mask [M, T] bool."""
        ids, mask = self.text.encode(texts)
        longest = int(mask.sum(axis=1).max(initial=0))
        return {
            "ids": torch.from_numpy(np.ascontiguousarray(ids[:, :longest])),
            "mask": torch.from_numpy(np.ascontiguousarray(mask[:, :longest])),
        }

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Region embeddings and the region layers. `slot` does not count: the head keeps the pictures apart."""
        features = self.standardise(images["features"])
        return Visual(self.network.see(features, images["boxes"], images["mask"]), images["mask"])

    def read(self, texts: Tensors) -> Textual:
        """Text embeddings and the language layers."""
        return Textual(self.network.read(texts["ids"], texts["mask"]), texts["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The cross layers and the pooler, which looks at [CLS]."""
        pooled, text, visual = self.network.fuse(read.states, read.mask, seen.states, seen.mask)
        return Features(pooled, text, visual, read.mask, seen.mask)


def _regions(resources: Resources) -> RegionSource:
    if resources.regions is None:
        raise VlbenchError("CVLP looks at regions and was given none: give region features or an extractor")
    return resources.regions


def _padded(arrays: Sequence[NDArray[np.float32]], width: int) -> Tensor:
    """Stack arrays [R_n, width] to [N, R, width] with R the largest R_n, zeros below the shorter ones."""
    padded = np.zeros((len(arrays), max(map(len, arrays), default=0), width), np.float32)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return torch.from_numpy(padded)
