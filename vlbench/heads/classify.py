"""One picture, one text, one label."""

from __future__ import annotations

from torch import Tensor

from vlbench.core.backbone import Features
from vlbench.core.cards import HeadLayout
from vlbench.heads.labels import LabelHead


class ClassifyHead(LabelHead):
    """A classifier on the pooled vector of the pair.

    Source: Tan and Bansal 2019; with width 768 it is Linear(768, 1536), GELU, LayerNorm, Linear(1536, C).
    """

    def __init__(self, width: int, labels: tuple[str, ...], layout: HeadLayout) -> None:
        super().__init__(width, labels, 1, layout)

    def forward(self, features: Features) -> Tensor:
        """Features with pooled [B, D] -> logits [B, C]."""
        logits: Tensor = self.classifier(features.pooled)
        return logits
