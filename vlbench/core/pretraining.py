"""What pretraining is to vlbench: a backbone, and objectives that need pairs of pictures and texts only.

Shapes: B pairs of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from vlbench.core.backbone import Backbone, Tensors
from vlbench.core.examples import Query

Option: TypeAlias = "bool | int | float | str"
"""A value of a pretraining's own options."""

if TYPE_CHECKING:
    from torch import Tensor

Gather: TypeAlias = "Callable[[Tensor], Tensor]"
"""Rows [n, ...] of this process -> those of all processes, one process after the other; n may differ."""


def alone(rows: Tensor) -> Tensor:
    """The rows themselves: there is one process only."""
    return rows


class Pretraining(Protocol):
    """An nn.Module: a backbone and the heads of its objectives, with all that must survive an interruption as state.

    divisible: whether a step's pairs may be dealt out to forward passes of their own, one after the other or on several
    processes: none of them changes what the next one sees.
    """

    divisible: bool

    @property
    def backbone(self) -> Backbone: ...

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names that `losses` gives."""
        ...

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """What `losses` takes, from B pairs that match; all chance is drawn from `rng`. Runs on the CPU, in workers."""
        ...

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """One scalar per objective, weighted as the paper weights it; their sum is trained."""
        ...

    def after_step(self, gather: Gather = alone) -> None:
        """What follows an optimizer step: momentum copies move, queues take in the keys of all processes."""
        ...

    def settings(self) -> Mapping[str, Option]:
        """Every number and choice of the objectives that ran, for the card of the weights."""
        ...

    def head_weights(self) -> Mapping[str, Tensor]:
        """What the head of a later run can begin with, by its name there; empty where there is nothing.

        `head.score.weight` [1, D], `head.score.bias` [1]: the matching head's row for a match, to a head that ranks.
        `head.classifier.*`: a classifier over the answers that were learned.
        """
        ...


@runtime_checkable
class Answering(Protocol):
    """A pretraining that learns answers too, where some of its pairs are questions.

    answers: what the rows of `head.classifier` among its `head_weights` stand for; none before `learn_answers`.
    """

    @property
    def answers(self) -> Sequence[str]: ...

    def learn_answers(self, answers: Sequence[str]) -> None:
        """Make the classifier over these answers; before training, once."""
        ...

    def prepare_answers(self, worths: Sequence[Mapping[str, float]], rng: Random) -> Tensors:
        """What `losses` takes besides, from what each answer to B pairs is worth (none: no question). In workers."""
        ...


@runtime_checkable
class HasMomentumCopies(Protocol):
    """A pretraining whose targets come from slowly moving copies of its networks."""

    def restart_copies(self, loaded: Collection[str]) -> None:
        """Make the copies equal to their networks, after weights were loaded into the tensors of the names `loaded`."""
        ...
