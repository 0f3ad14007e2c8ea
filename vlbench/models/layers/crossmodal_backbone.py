"""LXMERT's network as a backbone, the base class of CVLP and LXMERT."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.examples import ImageRef
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources
from vlbench.models.layers.attention import keys_of
from vlbench.models.layers.crossmodal import CrossModalConfig, CrossModalNetwork, FeatureNorm
from vlbench.models.layers.regions import load_regions, region_source, region_tensors
from vlbench.models.layers.texts import WordPieceBackbone

FITTED_ON = 4096
"""The number of training images that the scale of region features is measured on."""


class CrossModal(WordPieceBackbone):
    """The network with its preprocessing; shapes are those of `core.backbone`. Raises VlbenchError: no regions."""

    config_type = CrossModalConfig
    config: CrossModalConfig

    def __init__(self, config: CrossModalConfig, resources: Resources) -> None:
        super().__init__(config, resources)
        self.regions = region_source(resources, self.title)
        self.standardise = FeatureNorm(config.region_dim) if config.standardise else nn.Identity()
        self.network = CrossModalNetwork(config)

    @classmethod
    def sizes_of_data(cls, resources: Resources) -> dict[str, int]:
        return {**super().sizes_of_data(resources), "region_dim": region_source(resources, cls.title).dim}

    def fit(self, refs: Sequence[ImageRef]) -> None:
        """Measure mean and deviation of the region features, if the size standardises them."""
        if isinstance(self.standardise, FeatureNorm):
            features = np.concatenate([self.load_regions(ref).features for ref in refs[:FITTED_ON]])
            self.standardise.fit(torch.from_numpy(features))

    def load_regions(self, ref: ImageRef) -> Regions:
        """Load the first `max_regions` regions of an image; raise DataError if it has none."""
        return _first(load_regions(self.regions, ref), self.config.max_regions)

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """The `region_tensors` of N images; raise DataError if an image has no regions."""
        return region_tensors([self.load_regions(ref) for ref in refs], self.config.region_dim)

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Region embeddings and the region layers: [N, R, D]. `slot` is unused: the head distinguishes the images."""
        features = self.standardise(images["features"])
        states = self.network.see(features, images["boxes"], keys_of(images))
        return Visual(states, images["mask"], "keys" in images)

    def read(self, texts: Tensors) -> Textual:
        """Text embeddings and the language layers: [M, T, D]."""
        return Textual(self.network.read(texts["ids"], keys_of(texts)), texts["mask"], "keys" in texts)

    def fuse(self, seen: Visual, read: Textual, pooled_only: bool = False) -> Features:
        """The cross layers, and the pooler over [CLS]."""
        given = read.states, read.keys, seen.states, seen.keys
        if pooled_only and not self.training:
            return Features.of_pooled(self.network.pool(*given))
        pooled, text, visual = self.network.fuse(*given)
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
