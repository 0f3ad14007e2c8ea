"""Answers of a run as the gate compares them: unit by unit, with the alternatives of near ties."""

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
    """Answers of a run. said: unit -> answer; units are examples or, for a ranking, queries of both directions. others:
    unit -> alternative answers of near ties. data: a hash of the questions and references.
    """

    said: Mapping[str, str]
    others: Mapping[str, tuple[str, ...]]
    data: str


def read_answers(run: RunFolder, near: float) -> Answers:
    """The answers of a run. near: scores that differ by no more than this are a near tie. Raises DataError: the run's
    files are missing or corrupt.
    """
    rows = read_samples(run.samples, controls=False)
    units = list(_of_rankings(read_rankings(run.ranks, ()), near) if run.ranks.is_file() else _of_examples(rows, near))
    first_answers = {unit: answers[0] for unit, answers in units}
    return Answers(first_answers, {unit: answers[1:] for unit, answers in units if answers[1:]}, asked(rows))


def _of_examples(rows: pd.DataFrame, near: float) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Each example with its answer, followed by answers with nearly the same score."""
    columns = (rows[name] for name in ("example_id", "prediction", "labels", "label_scores"))
    for name, answer, labels, scores in zip(*columns, strict=True):
        known = [] if scores is None else [(label, score) for label, score in zip(labels, scores, strict=True)]
        best = max((score for _, score in known if not isnan(score)), default=0.0)
        close = (label for label, score in known if best - score <= near and label != answer)
        yield name, (answer, *close)


def _of_rankings(rankings: Iterable[Ranking], near: float) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Each query with its first candidate and the level of recall that finds it, such as `R@5, first 17`."""
    for ranking in rankings:
        firsts = [name for name, score in ranking.top if ranking.top[0][1] - score <= near] or ["none"]
        ranks = dict.fromkeys([_level(ranking.rank_high), *map(_level, _ranks(ranking, near))])
        answers = (f"{rank}, first {first}" for rank, first in product(ranks, firsts))
        yield f"{ranking.direction} {ranking.query_id}", tuple(answers)


def _level(rank: int) -> str:
    return next((f"R@{level}" for level in LEVELS if rank < level), "not found")


def _ranks(ranking: Ranking, near: float) -> Iterable[int]:
    """Alternative ranks of the best positive: any rank among candidates with nearly the same score. `top` holds one
    more candidate than the deepest recall needs, so both sides of that cut are known; a positive below `top` has an
    unknown score and keeps its rank.
    """
    scores = [score for _, score in ranking.top]
    if ranking.rank_high >= len(scores) or isnan(own := scores[ranking.rank_high]):
        return ()
    above = sum(score > own + near for score in scores)
    return range(above, max(above, sum(score >= own - near for score in scores) - ranking.positives) + 1)
