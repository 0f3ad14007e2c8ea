"""LXMERT's network as a backbone, the base class of CVLP and LXMERT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.examples import ImageRef
from vlbench.core.validate import parse
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources
from vlbench.models.layers.crossmodal import CrossModalConfig, CrossModalNetwork, FeatureNorm
from vlbench.models.layers.regions import load_regions, region_source, region_tensors
from vlbench.models.layers.texts import check_length, prepared_texts

FITTED_ON = 4096
"""The number of training images that the scale of region features is measured on."""


class CrossModal(nn.Module):
    """The network with its preprocessing; shapes are those of `core.backbone`.

    title: the model's name, set by subclasses.

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
        self.regions = region_source(resources, self.title)
        self.standardise = FeatureNorm(config.region_dim) if config.standardise else nn.Identity()
        self.network = CrossModalNetwork(config)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build one of the card's sizes, untrained, with the vocabulary and the regions of `resources`.

        Raises:
            VlbenchError: a faulty size in the card, or an input that the class rejects.
        """
        data = {"vocab_size": resources.text.vocab_size, "region_dim": region_source(resources, cls.title).dim}
        config = parse(CrossModalConfig, {**card.sizes[size].config, **data}, f"size {size!r} of model {card.name!r}")
        return cls(config, resources)

    def fit(self, refs: Sequence[ImageRef]) -> None:
        """Measure mean and deviation of the region features, if the size standardises them."""
        if isinstance(self.standardise, FeatureNorm):
            features = np.concatenate([self.load_regions(ref).features for ref in refs[:FITTED_ON]])
            self.standardise.fit(torch.from_numpy(features))

    def load_regions(self, ref: ImageRef) -> Regions:
        """Load the first `max_regions` regions of an image.

        Raises:
            DataError: the image has none.
        """
        return _first(load_regions(self.regions, ref), self.config.max_regions)

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """Load the regions of N images, padded with zeros to the largest number of regions in this batch.

        Returns: features [N, R, F] float32; boxes [N, R, 4] float32 in [0, 1], relative to the image's width and
            height; mask [N, R] bool, True where a region is real.

        Raises:
            DataError: an image has no regions.
        """
        return region_tensors([self.load_regions(ref) for ref in refs], self.config.region_dim)

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """Tokenize M texts, cut to the longest text in this batch: ids [M, T] int64, mask [M, T] bool."""
        return prepared_texts(self.text, texts)

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Region embeddings and the region layers: [N, R, D]. `slot` is unused: the head tells the images apart."""
        features = self.standardise(images["features"])
        return Visual(self.network.see(features, images["boxes"], images["mask"]), images["mask"])

    def read(self, texts: Tensors) -> Textual:
        """Text embeddings and the language layers: [M, T, D]."""
        return Textual(self.network.read(texts["ids"], texts["mask"]), texts["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The cross layers, and the pooler over [CLS]."""
        pooled, text, visual = self.network.fuse(read.states, read.mask, seen.states, seen.mask)
        return Features(pooled, text, visual, read.mask, seen.mask)

    def attend(self, seen: Visual, read: Textual) -> Tensor:
        """The attention of [CLS] to the regions in the last cross layer: [P, R]."""
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
