"""Recall and rank metrics of image-text retrieval: text retrieval (tr, from an image) and image retrieval (ir).

Each metric takes the rankings of all images and texts of a split. Where the split has folds, as COCO's five of 1,000
images, every value is computed per fold and averaged; intervals resample the images of all folds. Ties are pessimistic
by default: a wrong candidate with the score of the correct one ranks before it. `_optimistic` metrics rank it after,
`_expected` metrics average over all orders of equal scores.

Source: Karpathy and Fei-Fei 2015, Faghri et al. 2018 (VSE++); they have no rule for ties.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import product
from math import comb, floor
from statistics import fmean, median
from typing import Literal

from vlbench.core.errors import CoverageError, first_five
from vlbench.core.examples import Caption, Example
from vlbench.core.results import Direction, MetricAbsentError, Ranking, Score
from vlbench.metrics.coverage import id_faults
from vlbench.metrics.uncertainty import bounded_bootstrap, clustered_bootstrap, mean_score, scaled_score

Ties = Literal["pessimistic", "optimistic", "expected"]
LEVELS = (1, 5, 10)
DIRECTIONS: tuple[Direction, Direction] = ("i2t", "t2i")


def hit_probability(ranking: Ranking, k: int, ties: Ties) -> float:
    """The probability in [0, 1] that a correct candidate is among the first `k`: 0 or 1, except for expected ties.
    Raises MetricAbsentError: the list that was ranked ends before `k` and before its correct candidate.
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
    """R@K: the share of queries with a correct candidate among the first K, in percent [0, 100]; n counts queries."""

    name: str
    direction: Direction
    k: int
    ties: Ties

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The score; its interval resamples whole images.

        Raises CoverageError: rankings and examples do not match one to one.
        Raises MetricAbsentError: a list ends before K and before its correct candidate, or only the other direction has
        rankings.
        """
        matched = _MatchedRankings(rankings, examples)
        values = matched.hits(self.direction, self.k, self.ties)
        score = mean_score(self.name, values, matched.image_of[self.direction])
        return replace(score, value=100 * matched.over_folds(self.direction, values, fmean))


@dataclass(frozen=True)
class RecallSum:
    """rsum: the sum of R@1, R@5 and R@10 of both directions, in [0, 600]; n counts images."""

    name: str
    ties: Ties

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The score; its interval resamples whole images, each with its own query and those of its texts. Raises
        CoverageError, MetricAbsentError: as `Recall`.
        """
        matched = _MatchedRankings(rankings, examples)
        recalls = [(direction, matched.hits(direction, k, self.ties)) for direction, k in product(DIRECTIONS, LEVELS)]
        mean = fmean(matched.over_folds(direction, values, fmean) for direction, values in recalls)
        shares = dict.fromkeys(matched.image_of["i2t"], mean)
        for direction, values in recalls:
            for image, share in matched.above_average(direction, values).items():
                shares[image] += share / len(recalls)
        interval = bounded_bootstrap(shares, {image: image for image in shares})
        return scaled_score(self.name, 600 * mean, len(shares), interval, scale=600)


@dataclass(frozen=True)
class MedianRank:
    """medR: the median rank of the best correct candidate, from 1, rounded down; lower is better. n counts queries."""

    name: str
    direction: Direction

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The score, without an interval.

        Raises CoverageError: rankings and examples do not match one to one.
        Raises MetricAbsentError: a list ends before its correct candidate, or only the other direction has rankings.
        """
        matched = _MatchedRankings(rankings, examples)
        values = matched.ranks(self.direction)
        value = matched.over_folds(self.direction, values, lambda fold: floor(median(fold))) + 1
        method = "no interval: a median of whole numbers moves in steps"
        return Score(self.name, value, len(values), None, None, {}, higher_is_better=False, method=method)


@dataclass(frozen=True)
class MeanRank:
    """meanR: the mean rank of the best correct candidate, from 1; lower is better. n counts queries."""

    name: str
    direction: Direction

    def __call__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]], /) -> Score:
        """The score; its interval resamples whole images. Raises CoverageError, MetricAbsentError: as `MedianRank`."""
        matched = _MatchedRankings(rankings, examples)
        values = matched.ranks(self.direction)
        # As shares of the largest rank: if all shares are 0, or all are 1, there still is an interval.
        largest = max(map(len, matched.image_of.values()))
        shares = {query: rank / largest for query, rank in values.items()}
        interval = clustered_bootstrap(shares, matched.image_of[self.direction])
        value = matched.over_folds(self.direction, values, fmean) + 1
        score = scaled_score(self.name, value, len(values), interval, scale=largest, offset=1)
        return replace(score, higher_is_better=False)


def recalls(rankings: Sequence[Ranking], examples: Sequence[Example[Caption]]) -> dict[str, float]:
    """R@1, R@5 and R@10 in percent by metric name: the values of `Recall`, without intervals. Raises CoverageError,
    MetricAbsentError: as `Recall`.
    """
    matched, prefix = _MatchedRankings(rankings, examples), {"i2t": "tr", "t2i": "ir"}
    return {
        f"{prefix[direction]}_r{k}": 100
        * matched.over_folds(direction, matched.hits(direction, k, "pessimistic"), fmean)
        for direction, k in product(DIRECTIONS, LEVELS)
    }


def random_recalls(examples: Sequence[Example[Caption]]) -> Mapping[str, float]:
    """The expected R@K of a random order of the candidates, in percent by metric name."""
    texts: dict[str, Counter[str]] = defaultdict(Counter)  # fold -> image -> its number of texts
    for example in examples:
        texts[example.reference.fold][example.reference.image] += 1
    values = {}
    for k in LEVELS:
        tr = (fmean(_random_hit(own, fold.total(), k) for own in fold.values()) for fold in texts.values())
        values[f"tr_r{k}"] = 100 * fmean(tr)
        values[f"ir_r{k}"] = 100 * fmean(_random_hit(1, len(fold), k) for fold in texts.values())
    return values


def _random_hit(correct: int, candidates: int, k: int) -> float:
    """The probability that a correct one is among `k` of the candidates drawn at random."""
    return hit_probability(Ranking("", "i2t", 0, candidates - correct, correct), k, "expected")


class _MatchedRankings:
    """Rankings that match the examples one to one. image_of: direction -> query -> its image, by which intervals
    cluster.
    """

    def __init__(self, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]]) -> None:
        if not examples:
            raise CoverageError("there are no examples to score: expected at least one")
        images = {item.reference.image: item.reference.image for item in examples}
        self.image_of = {"i2t": images, "t2i": {item.id: item.reference.image for item in examples}}
        self._fold_of = {item.reference.image: item.reference.fold for item in examples}
        self._by_direction: dict[Direction, list[Ranking]] = {direction: [] for direction in DIRECTIONS}
        # Sorted, because float sums depend on the order of their terms, and a metric must not.
        for item in sorted(rankings, key=lambda item: item.query_id):
            self._by_direction[item.direction].append(item)
        for direction, queries in self._by_direction.items():
            if queries or not rankings:
                _match(direction, [item.query_id for item in queries], self.image_of[direction].keys())

    def of(self, direction: Direction) -> Sequence[Ranking]:
        """The rankings of that direction, sorted by query. A file may have one direction only. Raises
        MetricAbsentError: there are none.
        """
        if not self._by_direction[direction]:
            raise MetricAbsentError(f"there are no {direction} rankings")
        return self._by_direction[direction]

    def hits(self, direction: Direction, k: int, ties: Ties) -> Mapping[str, float]:
        """Query -> `hit_probability` at `k`."""
        return {item.query_id: hit_probability(item, k, ties) for item in self.of(direction)}

    def ranks(self, direction: Direction) -> Mapping[str, int]:
        """Query -> its pessimistic rank, counted from 0."""
        queries = self.of(direction)
        cut = [item.query_id for item in queries if item.depth is not None and item.rank_high >= item.depth]
        if cut:
            raise MetricAbsentError(f"{len(cut):,} {direction} lists end above their right answer ({first_five(cut)})")
        return {item.query_id: item.rank_high for item in queries}

    def over_folds(
        self, direction: Direction, values: Mapping[str, float], average: Callable[[Sequence[float]], float]
    ) -> float:
        """The average (mean or median) of the values of each fold, and the mean of that over the folds."""
        return fmean(average(list(fold.values())) for fold in self._folds(direction, values))

    def above_average(self, direction: Direction, values: Mapping[str, float]) -> Mapping[str, float]:
        """Image -> its contribution to the mean over folds, centred: the mean over images is zero. It sums how far the
        image's queries are above the mean of their fold, weighted by the number of images per query: the linear part of
        a ratio, and the image's own mean, centred, where all images have as many queries.
        """
        folds, shares = self._folds(direction, values), dict.fromkeys(self.image_of["i2t"], 0.0)
        for fold in folds:
            mean, weight = fmean(fold.values()), len(shares) / len(folds) / len(fold)
            for query, value in fold.items():
                shares[self.image_of[direction][query]] += (value - mean) * weight
        return shares

    def _folds(self, direction: Direction, values: Mapping[str, float]) -> Sequence[Mapping[str, float]]:
        folds: dict[str, dict[str, float]] = defaultdict(dict)
        for query, value in values.items():
            folds[self._fold_of[self.image_of[direction][query]]][query] = value
        return list(folds.values())


def _match(direction: Direction, given: Sequence[str], expected: Set[str]) -> None:
    if faults := id_faults(Counter(given), expected):
        kind = "images" if direction == "i2t" else "texts"
        raise CoverageError(
            f"{direction} rankings do not match the {len(expected):,} {kind} one to one: {', '.join(faults)}; "
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
