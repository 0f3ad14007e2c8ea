"""Rankings in two stages: the K best of each query by a quick score, put in order by a slow one.

What is on a query's shortlist comes before all that is not, which keeps the order of the quick score. Shortlists are
nested, so the slow scores of K candidates tell what any smaller K would have come to.
Shapes: N pictures, M texts, Q queries, C candidates, K of them on each shortlist, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlbench.core.gallery import Gallery
from vlbench.core.results import Direction, Ranking
from vlbench.metrics.ranks import TOP, Counts, Scores, best, ranks

Look = Callable[[Counts, Counts], NDArray[np.float32]]
"""From the rows and columns [P] of pairs, row by row, to their slow scores [P]."""


@dataclass(frozen=True)
class Standing:
    """Where each query's best right answer stands, counted as `core.results.Ranking` does: all [Q]."""

    low: Counts
    high: Counts
    positives: Counts


@dataclass(frozen=True)
class Shortlists:
    """Those of one direction.

    candidates [Q, K]: best first by the quick score. scores [Q, K]: their slow ones. right [Q, K]: whether a candidate
    is a right answer. before: how the queries stood by the quick score.
    """

    direction: Direction
    candidates: Counts
    scores: NDArray[np.float32]
    right: NDArray[np.bool_]
    before: Standing

    def at(self, depth: int) -> Standing:
        """How the queries stand where the first `depth` of each shortlist were looked at."""
        scores, right = self.scores[:, :depth], self.right[:, :depth]
        most = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
        positives = (right & (scores == most)).sum(axis=1)
        low, high = (scores > most).sum(axis=1), (scores >= most).sum(axis=1) - positives
        there, before = right.any(axis=1), self.before
        # A right answer below the shortlist has all of that before it, among it all that the quick score put higher.
        return Standing(
            np.where(there, low, np.maximum(before.low, scores.shape[1])),
            np.where(there, high, before.high),
            np.where(there, positives, before.positives),
        )

    def rankings(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """Where the queries stand at that depth, without the best of each."""
        standing = self.at(depth)
        counts = (standing.low.tolist(), standing.high.tolist(), standing.positives.tolist())
        return [
            Ranking(query, self.direction, low, high, positives)
            for query, low, high, positives in zip(queries, *counts, strict=True)
        ]

    def best(self, quick: Scores, candidates: Sequence[str]) -> list[tuple[tuple[str, float], ...]]:
        """The `TOP` best of each query: of the shortlist by the slow score, then the others.

        quick [Q, C]: the quick scores. The slow ones are moved up as far as it takes to exceed them all.
        """
        depth = self.scores.shape[1]
        lift = float(quick.max()) - float(self.scores.min()) + 1.0
        found = []
        for row, (others, values) in enumerate(best(quick, max(depth, TOP))):
            order = np.argsort(-self.scores[row], kind="stable")
            names = [*self.candidates[row][order].tolist(), *others[depth:].tolist()]
            marks = [*(self.scores[row][order] + lift).tolist(), *values[depth:].tolist()]
            found.append(tuple((candidates[name], mark) for name, mark in zip(names[:TOP], marks[:TOP], strict=True)))
        return found


def depths(k: int) -> list[int]:
    """1, 2, 5, 10, 20, 50 ... below k, and k."""
    steps = (step * 10**power for power in range(len(str(k))) for step in (1, 2, 5))
    return [*(depth for depth in steps if depth < k), k]


def in_two_stages(quick: Scores, gallery: Gallery, k: int, look: Look) -> dict[int, list[Ranking]]:
    """The rankings that a gallery's quick scores [N, M] come to, for each of the `depths` up to k of the shortlists.

    A pair may be on its picture's shortlist and not on its text's; `look` is asked once, for all pairs on either. The
    best of each query come with the last depth only.

    Raises:
        DataError: as `metrics.ranks.ranks` does.
    """
    pictures, texts = [ref.key for ref in gallery.images], gallery.text_ids
    owner = np.asarray(gallery.owner, np.int64)
    counted = ranks(quick, owner)
    rows, columns = np.arange(len(pictures))[:, None], np.arange(len(texts))[:, None]
    of_pictures, of_texts = _shortlisted(quick, k), _shortlisted(quick.T, k)
    pairs = rows * len(texts) + of_pictures, of_texts * len(texts) + columns
    every = np.union1d(*pairs)
    scores = look(every // len(texts), every % len(texts))
    slow = [scores[np.searchsorted(every, wanted)] for wanted in pairs]
    i2t = Standing(counted.i2t_low, counted.i2t_high, counted.i2t_positives)
    t2i = Standing(counted.t2i_low, counted.t2i_high, np.ones(len(texts), np.int64))
    lists = (
        Shortlists("i2t", of_pictures, slow[0], owner[of_pictures] == rows, i2t),
        Shortlists("t2i", of_texts, slow[1], of_texts == owner[:, None], t2i),
    )
    found = {depth: lists[0].rankings(pictures, depth) + lists[1].rankings(texts, depth) for depth in depths(k)}
    top = lists[0].best(quick, texts) + lists[1].best(quick.T, pictures)
    found[k] = [replace(one, top=names) for one, names in zip(found[k], top, strict=True)]
    return found


def _shortlisted(scores: Scores, k: int) -> Counts:
    """The `k` best candidates of each row of scores [Q, C], best first, ties in their order: [Q, min(k, C)]."""
    return np.array([chosen for chosen, _ in best(scores, k)], np.int64)
