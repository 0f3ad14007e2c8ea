"""The Learner: a model and a head as one module, which the engine trains, wraps and compiles.

Shapes: B examples, P pairs, C answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import isfunction
from types import MethodType
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlbench.core.backbone import Adaptable, Backbone, DualEncoder, Following, Model
from vlbench.core.batch import Batch
from vlbench.core.errors import VlbenchError
from vlbench.heads.base import Head
from vlbench.heads.forward import Embedded
from vlbench.heads.inputs import PromptInputs

TENSOR_METHODS = tuple(
    name
    for protocol in (Backbone, DualEncoder)
    for name, member in vars(protocol).items()
    if isfunction(member) and not name.startswith(("_", "prepare_"))
)
"""The methods of a backbone that run on the device, from tensors to tensors."""


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

    def compile_model(self, backend: str = "inductor") -> None:
        """Let torch compile the model when it first runs, in place, for inputs of any size.

        Of a backbone its methods over tensors are compiled, so that every evaluator and training run compiled code; of
        a generative model its networks. The head, a few layers, is not.

        Raises:
            VlbenchError: a generative model without a network.
        """
        if isinstance(self.head.inputs, PromptInputs):
            for network in _networks(self.backbone):
                network.compile(dynamic=True, backend=backend)
            return
        for name in TENSOR_METHODS:
            if function := getattr(type(self.backbone), name, None):
                # Not with all sizes symbolic from the start, which costs a convolutional network minutes.
                compiled = torch.compile(function, backend=backend)
                # A bound method, so that a copy of the learner, as averaged weights are, runs its own weights.
                setattr(self.backbone, name, MethodType(compiled, self.backbone))

    def forward(self, batch: Batch, embeds: bool = False) -> Output | Embedded:
        """The logits of a batch of B examples, [B, C] or [P], and the loss where there are targets.

        embeds: return only the embeddings of the pairs, of a head that contrasts them.
        """
        if embeds:
            return self.head.embed(self.model, batch)
        logits = self.head.logits(self.model, batch)
        return Output(logits, None if batch.targets is None else self.head.loss(logits, batch.targets))


def _networks(generator: nn.Module) -> list[nn.Module]:
    """The networks of a generative model; of one of transformers also the part without its output layer."""
    networks = [*generator.children()]
    if isinstance(generator, Adaptable) and isinstance(
        base := getattr(generator.adaptable(), "base_model", None), nn.Module
    ):
        networks.append(base)
    if not networks:
        raise VlbenchError(f"--compile has no effect on {type(generator).__name__}, which has no network: leave it out")
    return networks
