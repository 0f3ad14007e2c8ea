"""The Learner: a backbone and a head as one module, the only thing the engine trains, wraps or compiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from vlbench.core.backbone import Backbone, DualEncoder, Features, Following, Generator, Textual, Visual
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example
from vlbench.core.head import Head
from vlbench.engine.batching.batches import Batch, Batches
from vlbench.engine.batching.prompts import PromptBatch, PromptBatches
from vlbench.heads.dual import DualHead
from vlbench.heads.generate import GenerateHead


def embed(backbone: Backbone, seen: Visual, read: Textual) -> tuple[Tensor, Tensor]:
    """Unit vectors of what was seen [N, E] and read [M, E]. Raises as `dual_encoder` does."""
    encoder = dual_encoder(backbone)
    return encoder.embed_images(seen), encoder.embed_texts(read)


def dual_encoder(backbone: Backbone) -> DualEncoder:
    """The backbone as one that embeds.

    Raises:
        VlbenchError: it only looks at pairs.
    """
    if not isinstance(backbone, DualEncoder):
        raise VlbenchError(
            f"{type(backbone).__name__} has no embeddings of pictures and texts apart: leave out --rerank-k, and let "
            f"its card say `ranks_by: cross`"
        )
    return backbone


@dataclass(frozen=True)
class Output:
    """logits as the head gives them, or the loss of each answer that is written; loss: a scalar, None where the batch
    carries no targets."""

    logits: Tensor
    loss: Tensor | None


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a batch's B pairs, without logits or loss.

    images, texts: [B, E], of length 1. head: a copy of each of the head's parameters, in their order, so that a
    gradient can be carried on to them through the forward pass that DDP watches.
    """

    images: Tensor
    texts: Tensor
    head: tuple[Tensor, ...]


def only_pooled(pooled: Tensor) -> Features:
    """Features of vectors [P, D] alone, which is all that a classifier looks at."""
    none, mask = pooled[:, :0, None], torch.zeros(len(pooled), 0, dtype=torch.bool)
    return Features(pooled, none, none, mask, mask)


class Learner(nn.Module):
    """backbone + head. Pictures and texts are encoded once per batch and fused per pair, or go in as one prompt.

    asking: how examples become prompts, where a head answers from what a model that writes makes of them.
    live_batch_norm: whether batch norms normalise by the statistics of the batch while training. By default they use
    their running statistics, which then stay as they are: a loss does not depend on how a step is cut. Modules that a
    backbone names as `following` never move.
    """

    def __init__(
        self, backbone: Backbone | Generator, head: Head | GenerateHead, asking: GenerateHead | None = None
    ) -> None:
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = cast(nn.Module, head)
        self.asking = asking
        self.live_batch_norm = False

    def train(self, mode: bool = True) -> Self:
        """As of any module, but what has running statistics stays in eval mode; its weights learn all the same."""
        super().train(mode)
        for module in self._kept() if mode else ():
            module.eval()
        return self

    def batch_norms(self) -> list[nn.Module]:
        """All batch norms, those of frozen layers among them."""
        return [module for module in self.modules() if isinstance(module, _BatchNorm)]

    def _kept(self) -> list[nn.Module]:
        moving = list(self.backbone.following()) if isinstance(self.backbone, Following) else []
        return moving if self.live_batch_norm else [*moving, *self.batch_norms()]

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

    def batches(
        self, examples: Sequence[Example[Any]], blocks: Sequence[Sequence[int]]
    ) -> Dataset[Batch | PromptBatch]:
        """Blocks of examples to be answered by the head, without targets."""
        if self.asking is not None:
            return PromptBatches(examples, blocks, cast(Generator, self.backbone), self.asking)
        return Batches(examples, blocks, self.parts[0])

    def features(self, batch: Batch | PromptBatch) -> Features:
        """What the backbone makes of a batch's P pairs, or of its B prompts."""
        if isinstance(batch, PromptBatch):
            return only_pooled(cast(Generator, self.backbone).states(batch.prompts))
        return self.parts[0].fuse(*self._pairs(batch))

    def forward(self, batch: Batch | PromptBatch, embeds: bool = False) -> Output | Embedded:
        """Answer a batch of B examples: the head's logits, and the loss where there are targets.

        embeds: give the embeddings of the pairs alone, of two towers.
        """
        if embeds and isinstance(batch, Batch):
            images, texts = embed(self.parts[0], *self._pairs(batch))
            return Embedded(images, texts, tuple(parameter.clone() for parameter in self.head.parameters()))
        if isinstance(self.head, GenerateHead) and isinstance(batch, PromptBatch):
            losses = self.writing[0].nll(batch.prompts)
            return Output(losses, losses.mean())
        backbone, head = self.parts
        if isinstance(head, DualHead) and isinstance(batch, Batch):
            logits = head(*embed(backbone, *self._pairs(batch)))
        else:
            logits = head(self.features(batch))
        targets = batch.targets if isinstance(batch, Batch) else None
        return Output(logits, None if targets is None else head.loss(logits, targets))

    def _pairs(self, batch: Batch) -> tuple[Visual, Textual]:
        backbone = self.parts[0]
        seen = backbone.see(batch.images, batch.slots).take(batch.image_rows)
        return seen, backbone.read(batch.texts).take(batch.text_rows)
