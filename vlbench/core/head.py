"""How an output kind questions a backbone.

Shapes: B examples, Q queries asked for each, I pictures per query, P = B * Q * I pairs, C answers, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from vlbench.core.backbone import Features
from vlbench.core.examples import Example, Query
from vlbench.core.results import Prediction

if TYPE_CHECKING:
    from torch import Tensor


class Head(Protocol):
    """An nn.Module over the features of a batch.

    `forward` takes the features of P pairs, ordered example by example, and gives logits, [B, C] where it classifies
    and [P] where it ranks.
    """

    def queries(self, rows: Sequence[int], examples: Sequence[Example[Any]], rng: Random) -> list[Query]:
        """What to ask about these rows of the training examples: Q queries for each, the example's own first."""
        ...

    def targets(self, examples: Sequence[Example[Any]]) -> Tensor:
        """What `loss` compares with; the only door through which references enter training."""
        ...

    def __call__(self, features: Features) -> Tensor: ...

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over the batch, a scalar."""
        ...


class Answering(Head, Protocol):
    """A head that answers: all but those that rank."""

    def finish(self, logits: Tensor, ids: Sequence[str]) -> list[Prediction]:
        """Turn logits [B, C] into one prediction per id."""
        ...
