"""The Learner: a backbone and a head as one module, the only thing the engine trains, wraps or compiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from vlbench.core.backbone import Backbone
from vlbench.core.head import Head
from vlbench.engine.batches import Batch


@dataclass(frozen=True)
class Output:
    """logits [B, C]; loss: a scalar, None where the batch carries no targets."""

    logits: Tensor
    loss: Tensor | None


class Learner(nn.Module):
    """backbone + head. Pictures and texts are encoded once per batch and fused per pair."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = cast(nn.Module, head)

    @property
    def parts(self) -> tuple[Backbone, Head]:
        """The backbone and the head under their own types."""
        return cast(Backbone, self.backbone), cast(Head, self.head)

    def forward(self, batch: Batch) -> Output:
        """Answer a batch of B examples: logits [B, C], and the loss where there are targets."""
        backbone, head = self.parts
        seen = backbone.see(batch.images, batch.slots)
        read = backbone.read(batch.texts)
        features = backbone.fuse(seen.take(batch.image_rows), read.take(batch.text_rows))
        logits = head(features)
        return Output(logits, None if batch.targets is None else head.loss(logits, batch.targets))
