"""What each process takes of an optimizer step: the step's rows cut once, alike for any number of processes.

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
    """One forward pass of training. places: its rows' places in the step's block. weight: its loss's share in the step.

    The weight is 0 where a process has nothing to do: it takes part with the first row, since processes meet in every
    step.
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
    """What process `rank` of `size` does in a step: the block cut into size * accumulation parts, dealt in turn.

    So 32 rows at once, 8 rows four times, and 16 rows on each of two processes are the same rows in the same order. All
    processes get equally many shares, at most `accumulation`.
    """
    parts = micro_blocks([range(len(block))], size * accumulation)
    rounds = -(-len(parts) // size)
    mine = [parts[place] if place < len(parts) else [] for place in range(rank, rounds * size, size)]
    return [Share(step, tuple(block), tuple(part or [0]), len(part) / len(block)) for part in mine]


def gathered_places(rows: int, accumulation: int, size: int) -> list[int]:
    """The places, in a step of so many rows, of what `size` processes gather: the shares of one after the other's."""
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
