"""How an output kind questions a backbone.

Shapes: B examples, I pictures per example, P = B * I pairs, C answers, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vlbench.core.backbone import Features
from vlbench.core.examples import Example
from vlbench.core.results import Prediction

if TYPE_CHECKING:
    from torch import Tensor


class Head(Protocol):
    """An nn.Module over the features of a batch.

    `forward` takes the features of P pairs, ordered example by example, and gives logits [B, C].
    """

    def targets(self, examples: Sequence[Example[Any]]) -> Tensor:
        """What `loss` compares with; the only door through which references enter training."""
        ...

    def __call__(self, features: Features) -> Tensor: ...

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over the batch, a scalar."""
        ...

    def finish(self, logits: Tensor, ids: Sequence[str]) -> list[Prediction]:
        """Turn logits [B, C] into one prediction per id."""
        ...
