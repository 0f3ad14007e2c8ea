"""The rows of a step are split the same way for any number of processes, with weights that add up to 1."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from vlbench.engine.training.micro_batches import shares, training_batches
from vlbench.heads.dual import DualHead

BLOCK = [7, 3, 9, 1, 4, 8, 2]


@pytest.mark.parametrize(("accumulation", "size"), [(1, 1), (3, 1), (1, 3), (2, 2), (4, 2), (1, 7), (5, 2), (2, 9)])
def test_every_row_once_and_weights_of_one(accumulation: int, size: int) -> None:
    dealt = [shares(BLOCK, 5, accumulation, rank, size) for rank in range(size)]
    assert len({len(one) for one in dealt}) == 1 and len(dealt[0]) <= accumulation
    working = [share for one in dealt for share in one if share.weight]
    assert sorted(row for share in working for row in share.rows) == sorted(BLOCK)
    assert sum(share.weight for share in working) == pytest.approx(1.0)
    assert all(share.weight == len(share.rows) / len(BLOCK) for share in working)
    assert all(share.rows == [BLOCK[0]] for one in dealt for share in one if not share.weight)


def test_processes_share_the_passes_of_one_process() -> None:
    alone = shares(BLOCK, 0, 4, 0, 1)
    first, second = (shares(BLOCK, 0, 2, rank, 2) for rank in range(2))
    assert [first[0], second[0], first[1], second[1]] == alone
    assert [share.rows for share in alone] == [[7, 4], [3, 8], [9, 2], [1]]


def test_random_draws_do_not_depend_on_the_split() -> None:
    """A head that draws a number per query, two queries for each row."""

    class Drawing(DualHead):
        def queries(self, rows: Any, examples: Any, rng: Random) -> list[Any]:
            return [(row, number, rng.random()) for row in rows for number in range(2)]

    learner: Any = SimpleNamespace(model=None, head=Drawing())

    def drawn(accumulation: int, step: int) -> list[Any]:
        of = shares(BLOCK, step, accumulation, 0, 1)
        draws = training_batches([], of, learner, "0/negatives").draws
        assert draws is not None
        return sorted(query for draw in draws for query in learner.head._draw_queries([], draw))

    assert drawn(1, 3) == drawn(2, 3) == drawn(5, 3) != drawn(1, 4)
