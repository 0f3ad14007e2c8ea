"""The Learner: a model and a head as one module, which the engine trains, wraps and compiles.

Shapes: B examples, P pairs, C answers.
"""

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
    """The output of a forward pass: logits of the head, [B, C] or [P], and a scalar loss; None without targets."""

    logits: Tensor
    loss: Tensor | None


class Learner(nn.Module):
    """A model under a head.

    live_batch_norm: whether batch norms normalise by the statistics of the batch while training. By default they use
    their running statistics, which do not change, so that a loss does not depend on how a step is cut. The modules
    that a backbone returns from `following` always stay in eval mode.
    """

    def __init__(self, model: Model, head: Head) -> None:
        super().__init__()
        self.backbone = cast(nn.Module, model)
        self.head = head
        self.live_batch_norm = False

    @property
    def model(self) -> Model:
        """The backbone, typed as a head needs it."""
        return cast(Model, self.backbone)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules; those with running statistics stay in eval mode, and their weights learn."""
        super().train(mode)
        if mode:
            following = self.backbone.following() if isinstance(self.backbone, Following) else ()
            for module in (*following, *(() if self.live_batch_norm else self.batch_norms())):
                module.eval()
        return self

    def batch_norms(self) -> list[nn.Module]:
        """All batch norms, including those of frozen layers."""
        return [module for module in self.modules() if isinstance(module, _BatchNorm)]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A context in evaluation mode; afterwards the mode is as before."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def forward(self, batch: Batch, embeds: bool = False) -> Output | Embedded:
        """The logits of a batch of B examples, [B, C] or [P], and the loss where there are targets.

        embeds: return only the embeddings of the pairs, of a head that contrasts them.
        """
        if embeds:
            return self.head.embed(self.model, batch)
        logits = self.head.logits(self.model, batch)
        return Output(logits, None if batch.targets is None else self.head.loss(logits, batch.targets))
