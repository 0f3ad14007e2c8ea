"""What each process takes of an optimizer step: the step's rows cut once, alike for any number of processes.

Shapes: B rows of a step, W processes, Q queries for each example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from vlbench.core.backbone import Backbone
from vlbench.core.cards import ScaleRange
from vlbench.core.examples import Example, Query
from vlbench.core.head import Head
from vlbench.engine.batching.batches import Batches, micro_blocks


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


class TrainingBatches(Batches):
    """Shares, each turned into a Batch when asked for; what chance decides does not depend on how a step is cut.

    chance: names the stream that negatives and changes of pictures are drawn from, step by step.

    Raises:
        VlbenchError: pictures shall be changed and the backbone cannot do that.
    """

    def __init__(
        self,
        examples: Sequence[Example[Any]],
        of: Sequence[Share],
        backbone: Backbone,
        head: Head,
        chance: str,
        augment: bool,
        scales: ScaleRange | None = None,
    ) -> None:
        rows = [share.rows for share in of]
        super().__init__(examples, rows, backbone, head, chance, augment=augment, scales=scales)
        self.of = of

    def _queries(self, index: int) -> list[Query]:
        """Drawn for the whole step, of which this share takes its own."""
        share = self.of[index]
        if self.head is None:
            return super()._queries(index)
        asked = self.head.queries(share.block, self.examples, Random(f"{self.chance}/{share.step}"))
        each = len(asked) // len(share.block)
        return [asked[place * each + number] for place in share.places for number in range(each)]

    def _number(self, index: int) -> int:
        return self.of[index].step
