"""Micro-batches: how the rows of an optimizer step are split over forward passes and processes, in a fixed order.

Shapes: B rows of a step, W processes, Q queries for each example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlbench.core.batch import Draw
from vlbench.core.cards import ScaleRange
from vlbench.core.examples import Examples
from vlbench.engine.batching.batches import Batches, micro_blocks
from vlbench.engine.learner import Learner
from vlbench.heads.inputs import check_changes


@dataclass(frozen=True)
class Share:
    """One forward pass of training: some rows of an optimizer step.

    step: number of the step. block: all rows of the step. places: the indices in the block of this pass's rows. weight:
    the share of its loss in the step's loss; 0 where a process has no row: it then computes the first row, since all
    processes must take part in every step.
    """

    step: int
    block: tuple[int, ...]
    places: tuple[int, ...]
    weight: float

    @property
    def rows(self) -> list[int]:
        """The rows of the training examples."""
        return [self.block[place] for place in self.places]


def shares(block: Sequence[int], step: int, accumulation: int, rank: int, size: int) -> list[Share]:
    """The forward passes of process `rank` of `size` in a step: its parts of the block, split evenly and dealt in turn.

    The block is split into size * accumulation parts, so 32 rows at once, four times 8 rows, and 16 rows on each of two
    processes are the same rows in the same order. All processes get the same number of shares, at most `accumulation`.
    """
    parts = micro_blocks([range(len(block))], size * accumulation)
    rounds = -(-len(parts) // size)
    mine = [parts[place] if place < len(parts) else [] for place in range(rank, rounds * size, size)]
    return [Share(step, tuple(block), tuple(part or [0]), len(part) / len(block)) for part in mine]


def gathered_places(rows: int, accumulation: int, size: int) -> list[int]:
    """The indices in a step of `rows` rows, in the order in which `size` processes gather their shares."""
    every = (share for rank in range(size) for share in shares(range(rows), 0, accumulation, rank, size))
    return [place for share in every if share.weight for place in share.places]


def training_batches(
    examples: Examples,
    shares: Sequence[Share],
    learner: Learner,
    stream: str,
    augment: bool = False,
    scales: ScaleRange | None = None,
) -> Batches:
    """The batches of shares; random draws do not depend on how a step is cut into shares.

    stream: names the random stream that negatives and changes of images are drawn from, step by step.

    Raises:
        VlbenchError: images shall be changed and the model cannot do that.
    """
    check_changes(learner.model, augment, scales)
    draws = [Draw(share.block, share.places, share.step, stream, augment, scales) for share in shares]
    return Batches(examples, [share.rows for share in shares], learner.model, learner.head, draws)
