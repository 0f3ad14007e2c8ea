"""The interface of pretraining: a backbone, and objectives that need pairs of images and texts only.

Shapes: B pairs of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from vlbench.core.backbone import Backbone, Tensors
from vlbench.core.examples import Query

Option: TypeAlias = "bool | int | float | str"
"""A value of an option of a pretraining."""

if TYPE_CHECKING:
    from torch import Tensor

Gather: TypeAlias = "Callable[[Tensor], Tensor]"
"""From the rows [n, ...] of this process to those of all processes, in the order of processes; n may differ."""


def alone(rows: Tensor) -> Tensor:
    """The rows [n, ...] themselves: the `Gather` of a single process."""
    return rows


class Pretraining(Protocol):
    """An nn.Module with a backbone and the heads of its objectives; its state dict is all that a resumed run needs.

    divisible: whether a step's pairs may be split over several forward passes or processes, because a forward pass
    does not change the state that the next one uses.
    """

    divisible: bool

    @property
    def backbone(self) -> Backbone: ...

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the `losses`."""

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """The input of `losses` from B matching pairs, with randomness from `rng` only. Runs on the CPU, in workers."""

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """One scalar per objective, weighted as in the paper; the training loss is their sum."""

    def after_step(self, gather: Gather = alone) -> None:
        """Update the state after an optimizer step: momentum encoders, and queues with the keys of all processes."""

    def settings(self) -> Mapping[str, Option]:
        """All settings of the objectives that ran, for the card of the weights."""

    def head_weights(self) -> Mapping[str, Tensor]:
        """Initial weights for the head of a later run, by their names there; empty if there are none.

        `head.score.weight` [1, D], `head.score.bias` [1]: the ITM head's row for a match, for a head that ranks.
        `head.classifier.*`: a classifier over the learned answers.
        """


@runtime_checkable
class LearnsAnswers(Protocol):
    """A pretraining that also learns answers, if some of its pairs are questions.

    answers: the answers of the rows of `head.classifier` in `head_weights`; empty before `learn_answers`.
    """

    @property
    def answers(self) -> Sequence[str]: ...

    def learn_answers(self, answers: Sequence[str]) -> None:
        """Create the classifier over these answers; called once, before training."""

    def prepare_answers(self, worths: Sequence[Mapping[str, float]], rng: Random) -> Tensors:
        """Further input of `losses`: answer -> score for each of B pairs (empty: not a question). Runs in workers."""


@runtime_checkable
class HasMomentumCopies(Protocol):
    """A pretraining whose targets come from momentum encoders: slowly updated copies of its networks."""

    def restart_copies(self, loaded: Collection[str]) -> None:
        """Make the copies equal to their networks. loaded: the names of the tensors whose weights were loaded."""
