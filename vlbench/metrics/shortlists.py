"""Rankings in two stages: the K best candidates of each query by a fast score, ordered by a slow one (reranking).

The candidates on a query's shortlist rank before all others, which keep the order of the fast score. Shortlists are
nested, so the slow scores of K candidates also give the result of any smaller K.
Shapes: N images, M texts, Q queries, C candidates, K of them on each shortlist, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench.core.gallery import Gallery
from vlbench.core.results import Direction, Ranking
from vlbench.metrics.ranks import TOP, Counts, ScoreMatrix, best, ranks

ScorePairs: TypeAlias = Callable[[Counts, Counts], NDArray[np.float32]]
"""From the image rows [P] and text columns [P] of pairs, sorted by row, to their slow scores [P]."""
Best: TypeAlias = tuple[tuple[str, float], ...]
"""The ids of the best few candidates of a query with their scores, best first."""


@dataclass(frozen=True)
class Positions:
    """The position of each query's best correct candidate, counted as in `core.results.Ranking`: all [Q]."""

    low: Counts
    high: Counts
    positives: Counts


@dataclass(frozen=True)
class Shortlists:
    """The shortlists of one direction. candidates [Q, K]: best first by the fast score. scores [Q, K]: their slow
    scores. correct [Q, K]: whether a candidate is correct. before: the positions by the fast score.
    """

    direction: Direction
    candidates: Counts
    scores: NDArray[np.float32]
    correct: NDArray[np.bool_]
    before: Positions

    def positions(self, depth: int) -> Positions:
        """The positions of the queries where the first `depth` of each shortlist are reranked."""
        scores, correct = self.scores[:, :depth], self.correct[:, :depth]
        best_correct = np.where(correct, scores, -np.inf).max(axis=1, keepdims=True)
        positives = (correct & (scores == best_correct)).sum(axis=1)
        low = (scores > best_correct).sum(axis=1)
        high = (scores >= best_correct).sum(axis=1) - positives
        listed, before = correct.any(axis=1), self.before
        # A correct candidate outside the shortlist ranks after all of it, and after all with a higher fast score.
        return Positions(
            np.where(listed, low, np.maximum(before.low, scores.shape[1])),
            np.where(listed, high, before.high),
            np.where(listed, positives, before.positives),
        )

    def rankings(self, queries: Sequence[str], depth: int, top: Iterable[Best] | None = None) -> list[Ranking]:
        """The rankings of Q queries at that depth, with the best candidates of each query."""
        at = self.positions(depth)
        counts = zip(at.low.tolist(), at.high.tolist(), at.positives.tolist(), strict=True)
        rows = zip(queries, counts, top or repeat((), len(queries)), strict=True)
        return [Ranking(query, self.direction, *places, few) for query, places, few in rows]

    def best(self, fast: Counts, values: ScoreMatrix, names: Sequence[str]) -> Iterator[Best]:
        """The ids and scores of the `TOP` best of each query: the shortlist by the slow score, then the others. fast,
        values [Q, at least K]: the best candidates by the fast score, and these scores. names [C]: the candidates' ids.
        The slow scores are raised by a constant, so that they exceed all fast ones.
        """
        order = np.argsort(-self.scores, axis=1, kind="stable")
        lift, depth = float(values.max()) - float(self.scores.min()) + 1.0, self.scores.shape[1]
        lifted = np.take_along_axis(self.scores, order, axis=1)[:, :TOP] + lift
        listed = np.take_along_axis(self.candidates, order, axis=1)[:, :TOP]
        columns = np.concatenate([listed, fast[:, depth:]], axis=1)[:, :TOP].tolist()
        for row, own, others in zip(columns, lifted.tolist(), values[:, depth:TOP].tolist(), strict=True):
            yield tuple(zip([names[column] for column in row], own + others, strict=True))


def depths(k: int) -> list[int]:
    """1, 2, 5, 10, 20, 50 ... below k, and k."""
    steps = (step * 10**power for power in range(len(str(k))) for step in (1, 2, 5))
    return [*(depth for depth in steps if depth < k), k]


def in_two_stages(fast: ScoreMatrix, gallery: Gallery, k: int, score_pairs: ScorePairs) -> dict[int, list[Ranking]]:
    """Depth -> the rankings of a gallery's images and texts, for each of the `depths` of the shortlists up to k.

    Only the rankings of the last depth have the best candidates of each query. fast: the fast scores [N, M]. k: the
    length of the shortlists. score_pairs: called once, with all pairs that are on the shortlist of their image or of
    their text.
    Raises DataError: as `metrics.ranks.ranks`.
    """
    images, texts = [ref.key for ref in gallery.images], gallery.text_ids
    owner = np.asarray(gallery.owner, np.int64)
    counts = ranks(fast, owner)
    rows, columns = np.arange(len(images))[:, None], np.arange(len(texts))[:, None]
    images_best, texts_best = (_best(matrix, max(k, TOP)) for matrix in (fast, fast.T))
    of_images, of_texts = images_best[0][:, :k], texts_best[0][:, :k]  # [N, K], [M, K]
    i2t_pairs, t2i_pairs = rows * len(texts) + of_images, of_texts * len(texts) + columns
    # Sorted here, since np.union1d hashes and takes 10 times as long.
    pairs = np.sort(np.concatenate([i2t_pairs.reshape(-1), t2i_pairs.reshape(-1)]))
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # [P], each once, as row * M + column
    scores = score_pairs(pairs // len(texts), pairs % len(texts))
    i2t_scores, t2i_scores = (scores[np.searchsorted(pairs, wanted)] for wanted in (i2t_pairs, t2i_pairs))
    i2t_before = Positions(counts.i2t_low, counts.i2t_high, counts.i2t_positives)
    t2i_before = Positions(counts.t2i_low, counts.t2i_high, np.ones(len(texts), np.int64))
    i2t = Shortlists("i2t", of_images, i2t_scores, owner[of_images] == rows, i2t_before)
    t2i = Shortlists("t2i", of_texts, t2i_scores, of_texts == owner[:, None], t2i_before)
    rankings = {depth: i2t.rankings(images, depth) + t2i.rankings(texts, depth) for depth in depths(k)[:-1]}
    top = i2t.best(*images_best, texts), t2i.best(*texts_best, images)
    return rankings | {k: i2t.rankings(images, k, top[0]) + t2i.rankings(texts, k, top[1])}


def _best(scores: ScoreMatrix, k: int) -> tuple[Counts, ScoreMatrix]:
    """The columns of the k best candidates of each row of scores [Q, C], best first, ties in order, and their scores:
    both [Q, min(k, C)].
    """
    columns, values = zip(*best(scores, k), strict=True)
    return np.array(columns, np.int64), np.array(values)
