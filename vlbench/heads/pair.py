"""Several pictures under one text, one label (NLVR2)."""

from __future__ import annotations

from torch import Tensor

from vlbench.core.backbone import Features
from vlbench.core.cards import HeadLayout
from vlbench.heads.labels import LabelHead


class PairHead(LabelHead):
    """A classifier on the pooled vectors of an example's pictures, put side by side in their order.

    Source: Tan and Bansal 2019; with width 768 and two pictures it is Linear(1536, 1536), GELU, LayerNorm,
    Linear(1536, 2).
    """

    def __init__(self, width: int, labels: tuple[str, ...], images: int, layout: HeadLayout) -> None:
        super().__init__(width, labels, images, layout)
        self.images = images

    def forward(self, features: Features) -> Tensor:
        """Features with pooled [B * I, D], example by example -> logits [B, C]."""
        together = features.pooled.reshape(-1, self.images * features.pooled.shape[1])  # [B * I, D] -> [B, I * D]
        logits: Tensor = self.classifier(together)
        return logits
