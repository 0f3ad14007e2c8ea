"""The Learner: a model and a head as one module, which the engine trains, wraps and compiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlbench.core.backbone import Following, Model
from vlbench.core.batch import Batch
from vlbench.heads.base import Head
from vlbench.heads.forward import Embedded


@dataclass(frozen=True)
class Output:
    """logits: as the head gives them. loss: a scalar, None where the batch has no targets."""

    logits: Tensor
    loss: Tensor | None


class Learner(nn.Module):
    """A model under a head.

    live_batch_norm: whether batch norms normalise by the statistics of the batch while training. By default they use
    their running statistics, which then stay as they are: a loss does not depend on how a step is cut. Modules that a
    backbone names as `following` never move.
    """

    def __init__(self, model: Model, head: Head) -> None:
        super().__init__()
        self.backbone = cast(nn.Module, model)
        self.head = head
        self.live_batch_norm = False

    @property
    def model(self) -> Model:
        """The backbone as what a head answers from."""
        return cast(Model, self.backbone)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules; those with running statistics stay in eval mode, and their weights learn."""
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

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode; at the end or on an error the mode that it was in."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def forward(self, batch: Batch, embeds: bool = False) -> Output | Embedded:
        """Answer a batch of B examples: the head's logits, and the loss where there are targets.

        embeds: give the embeddings of the pairs alone, of a head that contrasts them.
        """
        if embeds:
            return self.head.embed(self.model, batch)
        logits = self.head.logits(self.model, batch)
        return Output(logits, None if batch.targets is None else self.head.loss(logits, batch.targets))
