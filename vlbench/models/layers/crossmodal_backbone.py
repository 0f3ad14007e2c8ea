"""LXMERT's network as a backbone: regions and texts to tensors, tensors to features. CVLP and LXMERT are this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.core.validate import parse
from vlbench.data.regions.types import Regions, RegionSource
from vlbench.data.resources import Resources
from vlbench.models.layers.crossmodal import CrossModalConfig, CrossModalNetwork
from vlbench.models.layers.feature_norm import Standardise
from vlbench.models.layers.texts import check_length, prepared_texts

FITTED_ON = 4096
"""Training pictures that the scale of region features is measured on."""


class CrossModal(nn.Module):
    """The network with its doors to the data; its shapes are those of `core.backbone`. `title` is a model's own.

    Raises:
        VlbenchError: no regions in `resources`, or texts longer than the network has positions for.
    """

    title: ClassVar[str]

    def __init__(self, config: CrossModalConfig, resources: Resources) -> None:
        super().__init__()
        check_length(resources.text, config.positions, self.title)
        self.config = config
        self.width = config.width
        self.text = resources.text
        self.regions = self._source(resources)
        self.standardise = Standardise(config.region_dim) if config.standardise else nn.Identity()
        self.network = CrossModalNetwork(config)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build one of the card's sizes, untrained, with the vocabulary and the regions of `resources`.

        Raises:
            VlbenchError: faulty numbers in the card, or what the class refuses.
        """
        data = {"vocab_size": resources.text.vocab_size, "region_dim": cls._source(resources).dim}
        config = parse(CrossModalConfig, {**card.sizes[size].config, **data}, f"size {size!r} of model {card.name!r}")
        return cls(config, resources)

    @classmethod
    def _source(cls, resources: Resources) -> RegionSource:
        if resources.regions is None:
            raise VlbenchError(f"{cls.title} looks at regions and was given none: give region features or an extractor")
        return resources.regions

    def fit(self, refs: Sequence[ImageRef]) -> None:
        """Measure mean and deviation of the region features, where the size standardises them."""
        if isinstance(self.standardise, Standardise):
            features = np.concatenate([self.look(ref).features for ref in refs[:FITTED_ON]])
            self.standardise.fit(torch.from_numpy(features))

    def look(self, ref: ImageRef) -> Regions:
        """The regions of a picture that count: the first `max_regions`.

        Raises:
            DataError: it has none.
        """
        regions = self.regions.get(ref)
        if not len(regions.boxes):
            raise DataError(f"picture {ref.key!r} has 0 regions where at least 1 is needed: extract its features again")
        return _first(regions, self.config.max_regions)

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """The pictures' regions, padded with zeros to the largest number of them in this batch.

        Returns: features [N, R, F] float32; boxes [N, R, 4] float32, x as a share of the picture's width and
            y of its height; mask [N, R] bool.

        Raises:
            DataError: a picture without regions.
        """
        found = [self.look(ref) for ref in refs]
        counts = np.array([len(regions.boxes) for regions in found])
        return {
            "features": _padded([regions.features for regions in found], self.config.region_dim),
            "boxes": _padded([_shares(regions) for regions in found], 4),
            "mask": torch.from_numpy(np.arange(counts.max(initial=0)) < counts[:, None]),
        }

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """The texts' tokens, cut to the longest text in this batch: ids [M, T] int64, mask [M, T] bool."""
        return prepared_texts(self.text, texts)

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

    def attend(self, seen: Visual, read: Textual) -> Tensor:
        """What [CLS] attends to among the regions in the last cross layer: [P, R]."""
        return self.network.attend(read.states, read.mask, seen.states, seen.mask)

    def places(self, images: Tensors) -> Tensor:
        """The regions' boxes, [N, R, 4]."""
        return images["boxes"]


def _first(regions: Regions, count: int) -> Regions:
    return Regions(
        regions.width,
        regions.height,
        regions.boxes[:count],
        regions.features[:count],
        regions.object_ids[:count],
        regions.object_confidences[:count],
        regions.attribute_ids[:count],
        regions.attribute_confidences[:count],
    )


def _shares(regions: Regions) -> NDArray[np.float32]:
    """The boxes [R, 4] as shares of the picture's width and height."""
    shares: NDArray[np.float32] = (regions.boxes / np.array([regions.width, regions.height] * 2)).astype(np.float32)
    return shares


def _padded(arrays: Sequence[NDArray[np.float32]], width: int) -> Tensor:
    """Stack arrays [R_n, width] to [N, R, width] with R the largest R_n, zeros below the shorter ones."""
    padded = np.zeros((len(arrays), max(map(len, arrays), default=0), width), np.float32)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return torch.from_numpy(padded)
