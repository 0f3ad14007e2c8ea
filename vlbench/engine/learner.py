"""The Learner: a backbone and a head as one module, the only thing the engine trains, wraps or compiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from vlbench.core.backbone import Backbone, DualEncoder, Generator, Textual, Visual
from vlbench.core.errors import VlbenchError
from vlbench.core.head import Head
from vlbench.engine.batches import Batch
from vlbench.engine.prompts import PromptBatch
from vlbench.heads.dual import DualHead
from vlbench.heads.generate import GenerateHead


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
    """logits as the head gives them, or the loss of each answer that is written; loss: a scalar, None where the batch
    carries no targets."""

    logits: Tensor
    loss: Tensor | None


class Learner(nn.Module):
    """backbone + head. Pictures and texts are encoded once per batch and fused per pair, or go in as one prompt."""

    def __init__(self, backbone: Backbone | Generator, head: Head | GenerateHead) -> None:
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = cast(nn.Module, head)

    @property
    def parts(self) -> tuple[Backbone, Head]:
        """The backbone and the head under their own types, where it does not write."""
        return cast(Backbone, self.backbone), cast(Head, self.head)

    @property
    def writing(self) -> tuple[Generator, GenerateHead]:
        """The same of one that writes.

        Raises:
            VlbenchError: it does not.
        """
        if not isinstance(self.backbone, Generator) or not isinstance(self.head, GenerateHead):
            raise VlbenchError(f"{type(self.backbone).__name__} writes no text: use --mode finetune")
        return self.backbone, self.head

    def forward(self, batch: Batch | PromptBatch) -> Output:
        """Answer a batch of B examples: the head's logits, and the loss where there are targets."""
        if isinstance(batch, PromptBatch):
            losses = self.writing[0].nll(batch.prompts)
            return Output(losses, losses.mean())
        backbone, head = self.parts
        seen = backbone.see(batch.images, batch.slots).take(batch.image_rows)
        read = backbone.read(batch.texts).take(batch.text_rows)
        logits = head(*embed(backbone, seen, read)) if isinstance(head, DualHead) else head(backbone.fuse(seen, read))
        return Output(logits, None if batch.targets is None else head.loss(logits, batch.targets))
