"""The Learner: a backbone and a head as one module, the only thing the engine trains, wraps or compiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from vlbench.core.backbone import Backbone, DualEncoder, Textual, Visual
from vlbench.core.errors import VlbenchError
from vlbench.core.head import Head
from vlbench.engine.batches import Batch
from vlbench.heads.dual import DualHead


def embed(backbone: Backbone, seen: Visual, read: Textual) -> tuple[Tensor, Tensor]:
    """Unit vectors of what was seen [N, E] and read [M, E].

    Raises:
        VlbenchError: the backbone only looks at pairs.
    """
    if not isinstance(backbone, DualEncoder):
        raise VlbenchError(
            f"{type(backbone).__name__} has no embeddings of pictures and texts apart: leave out --rerank-k, and let "
            f"its card say `ranks_by: cross`"
        )
    return backbone.embed_images(seen), backbone.embed_texts(read)


@dataclass(frozen=True)
class Output:
    """logits as the head gives them; loss: a scalar, None where the batch carries no targets."""

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
        """Answer a batch of B examples: the head's logits, and the loss where there are targets."""
        backbone, head = self.parts
        seen = backbone.see(batch.images, batch.slots).take(batch.image_rows)
        read = backbone.read(batch.texts).take(batch.text_rows)
        logits = head(*embed(backbone, seen, read)) if isinstance(head, DualHead) else head(backbone.fuse(seen, read))
        return Output(logits, None if batch.targets is None else head.loss(logits, batch.targets))
