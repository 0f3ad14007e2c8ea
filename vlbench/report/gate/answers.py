"""What a run answered, as a gate compares it: unit by unit, with what near ties might have become instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import isnan
from typing import TYPE_CHECKING

from vlbench.core.results import Ranking
from vlbench.metrics.retrieval import LEVELS
from vlbench.records.folder import RunFolder
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples
from vlbench.report.tables.per_example import asked

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Answers:
    """said: unit -> its answer; units are examples or, of a ranking, queries of both directions.

    others: of near ties, what else they may have said. data: a hash of what was asked and of what is right.
    """

    said: Mapping[str, str]
    others: Mapping[str, tuple[str, ...]]
    data: str


def read_answers(run: RunFolder, near: float) -> Answers:
    """The answers of a run.

    Args:
        near: a score that lies no further below another's may change places with it.

    Raises:
        DataError: the run's files are missing or corrupt.
    """
    rows = read_samples(run.samples)
    rows = rows[rows["control"] == ""]
    told = list(_of_rankings(read_rankings(run.ranks, ()), near) if run.ranks.is_file() else _of_examples(rows, near))
    said = {unit: answers[0] for unit, answers in told}
    return Answers(said, {unit: answers[1:] for unit, answers in told if answers[1:]}, asked(rows))


def _of_examples(rows: pd.DataFrame, near: float) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Each example with its answer and those that lay close behind it."""
    columns = (rows[name] for name in ("example_id", "prediction", "labels", "label_scores"))
    for name, answer, labels, scores in zip(*columns, strict=True):
        known = [] if scores is None else [(label, score) for label, score in zip(labels, scores, strict=True)]
        best = max((score for _, score in known if not isnan(score)), default=0.0)
        close = (label for label, score in known if best - score <= near and label != answer)
        yield name, (answer, *close)


def _of_rankings(rankings: Iterable[Ranking], near: float) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Each query with its first candidate and the level of recall that finds it, such as `R@5, first 17`."""
    for one in rankings:
        firsts = [name for name, score in one.top if one.top[0][1] - score <= near] or ["none"]
        ranks = dict.fromkeys([_level(one.rank_high), *map(_level, _ranks(one, near))])
        answers = (f"{rank}, first {first}" for rank, first in product(ranks, firsts))
        yield f"{one.direction} {one.query_id}", tuple(answers)


def _level(rank: int) -> str:
    return next((f"R@{level}" for level in LEVELS if rank < level), "not found")


def _ranks(one: Ranking, near: float) -> Iterable[int]:
    """Where the best positive may stand instead: anywhere among those that scored nearly the same.

    `top` holds one more than the deepest recall looks at, so that both sides of its edge are known; a positive that
    stands below `top` has a score that is not, and stays where it is.
    """
    scores = [score for _, score in one.top]
    if one.rank_high >= len(scores) or isnan(own := scores[one.rank_high]):
        return ()
    above = sum(score > own + near for score in scores)
    return range(above, max(above, sum(score >= own - near for score in scores) - one.positives) + 1)
