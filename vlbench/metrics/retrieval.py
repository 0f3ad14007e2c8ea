"""Recall and rank metrics of image-text retrieval: text retrieval (tr, from a picture) and image retrieval (ir).

Each metric takes the rankings of all pictures and texts of a split. Where it is cut into folds, as COCO's five of 1,000
pictures, every figure is taken per fold and averaged. The reported ranks are pessimistic: a negative with the score of
the right answer comes before it. `_optimistic` figures let it come behind, `_expected` ones average over all orders.

Source: Karpathy and Fei-Fei 2015, Faghri et al. 2018 (VSE++); they have no rule for ties.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb, floor
from statistics import fmean, median
from typing import Literal

from vlbench.core.errors import CoverageError, first_five
from vlbench.core.examples import Caption, Example
from vlbench.core.results import Direction, MetricAbsentError, Ranking, Score
from vlbench.metrics.uncertainty import mean_score

Ties = Literal["pessimistic", "optimistic", "expected"]
LEVELS = (1, 5, 10)
DIRECTIONS: tuple[Direction, ...] = ("i2t", "t2i")


def found(ranking: Ranking, k: int, ties: Ties) -> float:
    """The chance in [0, 1] that a right answer is among the first `k`; 0 or 1 but for expected ties.

    Raises:
        MetricAbsentError: the list that was ranked is shorter than `k`.
    """
    if ranking.depth is not None and ranking.depth < k:
        raise MetricAbsentError(f"query {ranking.query_id!r} ranks {ranking.depth} candidates where {k} are needed")
    if ties != "expected":
        return float((ranking.rank_high if ties == "pessimistic" else ranking.rank_low) < k)
    tied, places = ranking.rank_high - ranking.rank_low, k - ranking.rank_low
    if places <= 0:
        return 0.0
    everything = comb(tied + ranking.positives, places)
    return 1.0 - comb(tied, places) / everything if everything else 1.0


@dataclass(frozen=True)
class Recall:
    """R@K: the share of queries with a right answer among the first K, in percent."""

    name: str
    direction: Direction
    k: int
    ties: Ties

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The figure; its interval draws whole pictures.

        Raises:
            CoverageError: rankings and examples do not match one to one.
            MetricAbsentError: a list is shorter than K.
        """
        places = _Places(rankings, examples)
        values = {item.query_id: found(item, self.k, self.ties) for item in places.of(self.direction)}
        score = mean_score(self.name, values, places.picture[self.direction])
        return replace(score, value=100 * places.over_folds(self.direction, values, fmean))


@dataclass(frozen=True)
class RecallSum:
    """rsum: the sum of R@1, R@5 and R@10 of both directions, at most 600; n counts pictures."""

    name: str
    ties: Ties

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The figure; its interval draws whole pictures, each with its texts. Raises as `Recall` does."""
        places = _Places(rankings, examples)
        value, shares = 0.0, dict.fromkeys(places.picture["i2t"], 0.0)
        for direction in DIRECTIONS:
            queries = places.of(direction)
            for k in LEVELS:
                values = {item.query_id: found(item, k, self.ties) for item in queries}
                value += 100 * places.over_folds(direction, values, fmean)
                for query, one in values.items():
                    # So that the mean of all pictures' shares is the sum of the six recalls, in sixths of 600.
                    shares[places.picture[direction][query]] += one * len(shares) / len(queries) / 6
        score = mean_score(self.name, shares, {picture: picture for picture in shares})
        interval = score.ci95 and (6 * score.ci95[0], 6 * score.ci95[1])
        stderr = None if score.stderr is None else 6 * score.stderr
        return replace(score, value=value, stderr=stderr, ci95=interval, per_example={})


@dataclass(frozen=True)
class Rank:
    """The median or the mean rank of the best right answer, counted from 1; lower is better. It has no interval.

    Source: Faghri et al. 2018 (the median's fraction is cut off).
    """

    name: str
    direction: Direction
    middle: Literal["median", "mean"]

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The figure.

        Raises:
            CoverageError: rankings and examples do not match one to one.
            MetricAbsentError: a list does not go down to its query's right answer.
        """
        places = _Places(rankings, examples)
        queries = places.of(self.direction)
        cut = [item.query_id for item in queries if item.depth is not None and item.rank_high >= item.depth]
        if cut:
            raise MetricAbsentError(f"{len(cut):,} lists end above their right answer ({first_five(cut)})")
        values = {item.query_id: float(item.rank_high) for item in queries}
        value = places.over_folds(self.direction, values, _median if self.middle == "median" else fmean) + 1
        return Score(self.name, value, len(values), None, None, {}, higher_is_better=False)


def chance(examples: Sequence[Example[Caption]]) -> Mapping[str, float]:
    """What R@K, in percent, is expected of a scorer that gives all pairs the same score, by metric name."""
    texts: dict[tuple[str, str], int] = Counter((item.reference.fold, item.reference.image) for item in examples)
    sizes = [[of for (name, _), of in texts.items() if name == fold] for fold in dict.fromkeys(f for f, _ in texts)]
    figures = {}
    for k in LEVELS:
        figures[f"tr_r{k}"] = 100 * fmean(fmean(_drawn(own, sum(fold), k) for own in fold) for fold in sizes)
        figures[f"ir_r{k}"] = 100 * fmean(_drawn(1, len(fold), k) for fold in sizes)
    return figures


def _drawn(right: int, of: int, k: int) -> float:
    """The chance that one of so many right candidates is among `k` of all."""
    return found(Ranking("", "i2t", 0, of - right, right), k, "expected")


def _median(values: Sequence[float]) -> float:
    return float(floor(median(values)))


class _Places:
    """Rankings counted against examples. picture: direction -> query -> its picture, which intervals cluster by."""

    def __init__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]]) -> None:
        pictures = {item.reference.image: item.reference.image for item in examples}
        self.picture = {"i2t": pictures, "t2i": {item.id: item.reference.image for item in examples}}
        self.fold = {item.reference.image: item.reference.fold for item in examples}
        self._of: dict[Direction, list[Ranking]] = {direction: [] for direction in DIRECTIONS}
        for item in rankings:
            self._of[item.direction].append(item)
        for direction, queries in self._of.items():
            _match(direction, [item.query_id for item in queries], self.picture[direction])

    def of(self, direction: Direction) -> Sequence[Ranking]:
        """The rankings of that direction."""
        return self._of[direction]

    def over_folds(
        self, direction: Direction, values: Mapping[str, float], middle: Callable[[Sequence[float]], float]
    ) -> float:
        """The middle of the values of each fold, averaged over the folds; the order of queries does not count."""
        folds: dict[str, list[float]] = defaultdict(list)
        for query, value in values.items():
            folds[self.fold[self.picture[direction][query]]].append(value)
        return fmean(middle(sorted(fold)) for _, fold in sorted(folds.items()))


def _match(direction: Direction, given: Sequence[str], expected: Mapping[str, str]) -> None:
    counts = Counter(given)
    faults = {
        "missing": expected.keys() - counts.keys(),
        "duplicate": {name for name, times in counts.items() if times > 1},
        "extra": counts.keys() - expected.keys(),
    }
    named = [f"{len(names):,} {kind} ({first_five(names)})" for kind, names in faults.items() if names]
    if named or not expected:
        raise CoverageError(
            f"rankings {direction} do not match the {len(expected):,} queries one to one: {', '.join(named)}; "
            f"rank every picture's texts and every text's pictures once"
        )


tr_r1, tr_r5, tr_r10 = (Recall(f"tr_r{k}", "i2t", k, "pessimistic") for k in LEVELS)
ir_r1, ir_r5, ir_r10 = (Recall(f"ir_r{k}", "t2i", k, "pessimistic") for k in LEVELS)
rsum = RecallSum("rsum", "pessimistic")
tr_medr, ir_medr = Rank("tr_medr", "i2t", "median"), Rank("ir_medr", "t2i", "median")
tr_meanr, ir_meanr = Rank("tr_meanr", "i2t", "mean"), Rank("ir_meanr", "t2i", "mean")
tr_r1_optimistic, tr_r5_optimistic, tr_r10_optimistic = (
    Recall(f"tr_r{k}_optimistic", "i2t", k, "optimistic") for k in LEVELS
)
ir_r1_optimistic, ir_r5_optimistic, ir_r10_optimistic = (
    Recall(f"ir_r{k}_optimistic", "t2i", k, "optimistic") for k in LEVELS
)
rsum_optimistic = RecallSum("rsum_optimistic", "optimistic")
tr_r1_expected, tr_r5_expected, tr_r10_expected = (Recall(f"tr_r{k}_expected", "i2t", k, "expected") for k in LEVELS)
ir_r1_expected, ir_r5_expected, ir_r10_expected = (Recall(f"ir_r{k}_expected", "t2i", k, "expected") for k in LEVELS)
rsum_expected = RecallSum("rsum_expected", "expected")
