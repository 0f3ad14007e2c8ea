"""Recall and rank metrics of image-text retrieval: text retrieval (tr, from a picture) and image retrieval (ir).

Each metric takes the rankings of all pictures and texts of a split. Where it is cut into folds, as COCO's five of 1,000
pictures, every figure is taken per fold and averaged; intervals draw from the pictures of all folds. The reported ranks
are pessimistic: a wrong answer with the score of the right one comes before it. `_optimistic` figures let it come
behind, `_expected` ones average over all orders of equal scores.

Source: Karpathy and Fei-Fei 2015, Faghri et al. 2018 (VSE++); they have no rule for ties.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import comb, floor
from statistics import fmean, median
from typing import Literal

from vlbench.core.errors import CoverageError, first_five
from vlbench.core.examples import Caption, Example
from vlbench.core.results import Direction, MetricAbsentError, Ranking, Score
from vlbench.metrics.uncertainty import bounded_bootstrap, clustered_bootstrap, mean_score

Ties = Literal["pessimistic", "optimistic", "expected"]
LEVELS = (1, 5, 10)
DIRECTIONS: tuple[Direction, Direction] = ("i2t", "t2i")


def found(ranking: Ranking, k: int, ties: Ties) -> float:
    """The chance in [0, 1] that a right answer is among the first `k`; 0 or 1 but for expected ties.

    Raises:
        MetricAbsentError: the ranking is of a list that ends above its right answer and before `k`.
    """
    if ranking.depth is not None and ranking.rank_high >= ranking.depth < k:
        raise MetricAbsentError(f"lists of {ranking.depth} candidates end above their right answer and before R@{k}")
    if ties != "expected":
        return float((ranking.rank_high if ties == "pessimistic" else ranking.rank_low) < k)
    wrong, places = ranking.rank_high - ranking.rank_low, k - ranking.rank_low
    if places <= 0:
        return 0.0
    draws = comb(wrong + ranking.positives, places)
    return 1.0 - comb(wrong, places) / draws if draws else 1.0


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
            MetricAbsentError: a list ends above its right answer and before K.
            MetricAbsentError: there are no rankings in this direction, but some in the other.
        """
        places = _Places(rankings, examples)
        values = places.found(self.direction, self.k, self.ties)
        score = mean_score(self.name, values, places.picture[self.direction])
        return replace(score, value=100 * places.over_folds(self.direction, values, fmean))


@dataclass(frozen=True)
class RecallSum:
    """rsum: the sum of R@1, R@5 and R@10 of both directions, at most 600; n counts pictures."""

    name: str
    ties: Ties

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The figure; its interval draws whole pictures, each with all that is found from it and from its texts.

        Raises as `Recall` does.
        """
        places = _Places(rankings, examples)
        six = [(direction, places.found(direction, k, self.ties)) for direction, k in product(DIRECTIONS, LEVELS)]
        mean = fmean(places.over_folds(direction, values, fmean) for direction, values in six)
        shares = dict.fromkeys(places.picture["i2t"], mean)
        for direction, values in six:
            for picture, share in places.above_average(direction, values).items():
                shares[picture] += share / len(six)
        interval = bounded_bootstrap(shares, {picture: picture for picture in shares})
        return Score(
            name=self.name,
            value=600 * mean,
            n=len(shares),
            stderr=None if interval is None else 600 * interval.stderr,
            ci95=None if interval is None else (600 * interval.low, 600 * interval.high),
            per_example={},
            method="" if interval is None else interval.method,
        )


@dataclass(frozen=True)
class MedianRank:
    """medR: the median rank of the best right answer, counted from 1, its fraction cut off; lower is better."""

    name: str
    direction: Direction

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The figure, without an interval.

        Raises:
            CoverageError: rankings and examples do not match one to one.
            MetricAbsentError: a list ends above its right answer, or only the other direction has rankings.
        """
        places = _Places(rankings, examples)
        values = places.ranks(self.direction)
        value = places.over_folds(self.direction, values, lambda fold: floor(median(fold))) + 1
        method = "no interval: a median of whole numbers moves in steps"
        return Score(self.name, value, len(values), None, None, {}, higher_is_better=False, method=method)


@dataclass(frozen=True)
class MeanRank:
    """meanR: the mean rank of the best right answer, counted from 1; lower is better."""

    name: str
    direction: Direction

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The figure; its interval draws whole pictures. Raises as `MedianRank` does."""
        places = _Places(rankings, examples)
        values = places.ranks(self.direction)
        # As shares of the worst rank, because where all of [0, 1] agree at an end there still is an interval.
        worst = max(len(of) for of in places.picture.values())
        shares = {query: rank / worst for query, rank in values.items()}
        interval = clustered_bootstrap(shares, places.picture[self.direction])
        return Score(
            name=self.name,
            value=places.over_folds(self.direction, values, fmean) + 1,
            n=len(values),
            stderr=None if interval is None else worst * interval.stderr,
            ci95=None if interval is None else (worst * interval.low + 1, worst * interval.high + 1),
            per_example={},
            higher_is_better=False,
            method="" if interval is None else interval.method,
        )


def recalls(rankings: Sequence[Ranking], examples: Sequence[Example[Caption]]) -> dict[str, float]:
    """R@1, R@5 and R@10 in percent by metric name, as `Recall` gives them but without intervals; raises as it does."""
    places, short = _Places(rankings, examples), {"i2t": "tr", "t2i": "ir"}
    return {
        f"{short[direction]}_r{k}": 100 * places.over_folds(direction, places.found(direction, k, "pessimistic"), fmean)
        for direction, k in product(DIRECTIONS, LEVELS)
    }


def chance(examples: Sequence[Example[Caption]]) -> Mapping[str, float]:
    """What R@K, in percent, is expected of a scorer that gives all pairs the same score, by metric name."""
    texts: dict[str, Counter[str]] = defaultdict(Counter)  # fold -> picture -> how many texts it has
    for example in examples:
        texts[example.reference.fold][example.reference.image] += 1
    figures = {}
    for k in LEVELS:
        tr = (fmean(_drawn(own, fold.total(), k) for own in fold.values()) for fold in texts.values())
        figures[f"tr_r{k}"] = 100 * fmean(tr)
        figures[f"ir_r{k}"] = 100 * fmean(_drawn(1, len(fold), k) for fold in texts.values())
    return figures


def _drawn(right: int, of: int, k: int) -> float:
    """The chance that one of so many right candidates is among `k` drawn of all."""
    return found(Ranking("", "i2t", 0, of - right, right), k, "expected")


class _Places:
    """Rankings counted against examples. picture: direction -> query -> its picture, which intervals cluster by."""

    def __init__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]]) -> None:
        if not examples:
            raise CoverageError("there are no examples to score: expected at least one")
        pictures = {item.reference.image: item.reference.image for item in examples}
        self.picture = {"i2t": pictures, "t2i": {item.id: item.reference.image for item in examples}}
        self._fold = {item.reference.image: item.reference.fold for item in examples}
        self._of: dict[Direction, list[Ranking]] = {direction: [] for direction in DIRECTIONS}
        # Sorted, because float sums depend on the order of their terms, and a metric must not.
        for item in sorted(rankings, key=lambda item: item.query_id):
            self._of[item.direction].append(item)
        for direction, queries in self._of.items():
            if queries or not rankings:
                _match(direction, [item.query_id for item in queries], self.picture[direction])

    def of(self, direction: Direction) -> Sequence[Ranking]:
        """The rankings of that direction, by query; some people hand in one direction alone."""
        if not self._of[direction]:
            raise MetricAbsentError(f"there are no {direction} rankings")
        return self._of[direction]

    def found(self, direction: Direction, k: int, ties: Ties) -> Mapping[str, float]:
        """Query -> the chance that a right answer is among its first `k`."""
        return {item.query_id: found(item, k, ties) for item in self.of(direction)}

    def ranks(self, direction: Direction) -> Mapping[str, int]:
        """Query -> its pessimistic rank, counted from 0."""
        queries = self.of(direction)
        cut = [item.query_id for item in queries if item.depth is not None and item.rank_high >= item.depth]
        if cut:
            raise MetricAbsentError(f"{len(cut):,} {direction} lists end above their right answer ({first_five(cut)})")
        return {item.query_id: item.rank_high for item in queries}

    def over_folds(
        self, direction: Direction, values: Mapping[str, float], middle: Callable[[Sequence[float]], float]
    ) -> float:
        """The middle of the values of each fold, averaged over the folds."""
        return fmean(middle(list(fold.values())) for fold in self._folds(direction, values))

    def above_average(self, direction: Direction, values: Mapping[str, float]) -> Mapping[str, float]:
        """Picture -> what it adds to the mean over folds, so that the mean over pictures of that is zero.

        It is what its queries have above the mean of their fold, by how much of all queries a picture stands for: the
        linear part of a ratio, and exactly the picture's own mean where all pictures have as many queries.
        """
        folds, shares = self._folds(direction, values), dict.fromkeys(self.picture["i2t"], 0.0)
        for fold in folds:
            mean, weight = fmean(fold.values()), len(shares) / len(folds) / len(fold)
            for query, value in fold.items():
                shares[self.picture[direction][query]] += (value - mean) * weight
        return shares

    def _folds(self, direction: Direction, values: Mapping[str, float]) -> Sequence[Mapping[str, float]]:
        folds: dict[str, dict[str, float]] = defaultdict(dict)
        for query, value in values.items():
            folds[self._fold[self.picture[direction][query]]][query] = value
        return list(folds.values())


def _match(direction: Direction, given: Sequence[str], expected: Mapping[str, str]) -> None:
    counts = Counter(given)
    faults = {
        "missing": expected.keys() - counts.keys(),
        "duplicate": {name for name, times in counts.items() if times > 1},
        "extra": counts.keys() - expected.keys(),
    }
    named = [f"{len(names):,} {kind} ({first_five(names)})" for kind, names in faults.items() if names]
    if named:
        kind = "pictures" if direction == "i2t" else "texts"
        raise CoverageError(
            f"{direction} rankings do not match the {len(expected):,} {kind} one to one: {', '.join(named)}; "
            f"rank the candidates of each of the {kind} once"
        )


tr_r1, tr_r5, tr_r10 = (Recall(f"tr_r{k}", "i2t", k, "pessimistic") for k in LEVELS)
ir_r1, ir_r5, ir_r10 = (Recall(f"ir_r{k}", "t2i", k, "pessimistic") for k in LEVELS)
rsum = RecallSum("rsum", "pessimistic")
tr_medr, ir_medr = MedianRank("tr_medr", "i2t"), MedianRank("ir_medr", "t2i")
tr_meanr, ir_meanr = MeanRank("tr_meanr", "i2t"), MeanRank("ir_meanr", "t2i")
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
