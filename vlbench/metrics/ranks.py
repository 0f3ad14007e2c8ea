"""Rank counts: the place of each query's correct candidate, from a matrix of image-text scores or from ranked lists.

Shapes: N images, M texts, Q queries, C candidates. Ranks are counted, not sorted: candidates scored higher, and ties.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from math import nan
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError, first_five
from vlbench.core.gallery import Gallery
from vlbench.core.results import Direction, Ranking

ScoreMatrix: TypeAlias = NDArray[np.floating]
Counts: TypeAlias = NDArray[np.int64]

TOP = 11
"""The number of best candidates that a ranking keeps: one more than R@10 needs, to know both sides of its edge."""
_SCORES_AT_ONCE = 1 << 20
"""The number of scores in a block: few enough that its intermediate arrays stay in the processor's caches."""


@dataclass(frozen=True)
class RankCounts:
    """What is ranked before each query's best correct candidate: i2t_* are [N] for images, t2i_* are [M] for texts.
    low: wrong candidates with a higher score. high: those plus wrong candidates with an equal score. positives: how
    many correct candidates have the best one's score; a text has one image only.
    """

    i2t_low: Counts
    i2t_high: Counts
    i2t_positives: Counts
    t2i_low: Counts
    t2i_high: Counts


def ranks(scores: ScoreMatrix, owner: Counts) -> RankCounts:
    """Count the candidates ranked before the correct ones.

    An image's rank is that of its best text; its other texts never count against it. scores: [N, M], floating point,
    possibly infinite, possibly a memory map: it is read once, in blocks of rows, and never copied as a whole. owner:
    [M], the row of each text's image.
    Raises DataError: scores that are not floating point, shapes that do not fit, an image without a text, or a NaN,
    with its row and column.
    """
    _check(scores, owner)
    own = _comparable(scores[owner, np.arange(len(owner))])  # [M]: each text with its own image
    best_own = np.full(len(scores), -np.inf, own.dtype)  # [N]: each image with the best of its own texts
    with np.errstate(invalid="ignore"):  # a NaN is reported below, where its row and column are known
        np.maximum.at(best_own, owner, own)
    positives = np.bincount(owner, own == best_own[owner], len(scores)).astype(np.int64)
    i2t_low, i2t_level = np.empty(len(scores), np.int64), np.empty(len(scores), np.int64)
    t2i_low, t2i_level = np.zeros(len(owner), np.int64), np.zeros(len(owner), np.int64)
    for rows in _blocks(scores):
        block = _comparable(scores[rows])
        _reject_nan(block, rows.start)
        i2t_low[rows] = np.count_nonzero(block > best_own[rows, None], axis=1)
        i2t_level[rows] = np.count_nonzero(block >= best_own[rows, None], axis=1)
        t2i_low += np.count_nonzero(block > own, axis=0)
        t2i_level += np.count_nonzero(block >= own, axis=0)
    return RankCounts(i2t_low, i2t_level - positives, positives, t2i_low, t2i_level - 1)


def rankings(scores: ScoreMatrix, gallery: Gallery, counts: RankCounts) -> list[Ranking]:
    """The counts of scores [N, M] as rankings with the `TOP` best of each query: all images, then all texts."""
    images, texts = [ref.key for ref in gallery.images], gallery.text_ids
    i2t_counts = (counts.i2t_low.tolist(), counts.i2t_high.tolist(), counts.i2t_positives.tolist())
    i2t = zip(images, *i2t_counts, _top(scores, texts), strict=True)
    t2i = zip(texts, counts.t2i_low.tolist(), counts.t2i_high.tolist(), _top(scores.T, images), strict=True)
    return [
        *(Ranking(query, "i2t", low, high, positives, top) for query, low, high, positives, top in i2t),
        *(Ranking(query, "t2i", low, high, 1, top) for query, low, high, top in t2i),
    ]


def from_matrix(scores: ScoreMatrix, gallery: Gallery) -> list[Ranking]:
    """The rankings of a gallery's images and texts from their scores [N, M]. Raises DataError: as `ranks`, or another
    shape than the gallery's.
    """
    if scores.shape != (len(gallery.images), len(gallery.texts)):
        raise DataError(
            f"scores have the shape {scores.shape} where {len(gallery.images):,} images by {len(gallery.texts):,} "
            f"texts are expected: give one row per image and one column per text, in the order of the gallery"
        )
    return rankings(scores, gallery, ranks(scores, np.asarray(gallery.owner, np.int64)))


def from_lists(lists: Mapping[str, Sequence[str]], direction: Direction, gallery: Gallery) -> list[Ranking]:
    """Rankings in one direction from lists without scores: query id -> candidate ids, best first.

    A list may hold a part of the candidates. Where no correct candidate is in it, both ranks are its length, which
    means "at that place or later". A list has no ties, and the scores of its best candidates are NaN.
    Raises DataError: a query or a candidate that is not in the gallery, or a duplicate candidate.
    """
    images = [ref.key for ref in gallery.images]
    image_of = {text: images[row] for text, row in zip(gallery.text_ids, gallery.owner, strict=True)}
    sides: tuple[Set[str], Set[str]] = (set(images), image_of.keys())
    queries, candidates = sides if direction == "i2t" else sides[::-1]
    ranked = []
    for query, names in lists.items():
        if query not in queries:
            raise DataError(f"{direction} list of {query!r}: expected a query of the gallery, which it is not")
        _check_list(f"{direction} list of {query!r}", names, candidates)
        is_correct = (image_of[name] == query if direction == "i2t" else name == image_of[query] for name in names)
        rank = next((place for place, correct in enumerate(is_correct) if correct), len(names))
        depth = None if len(names) == len(candidates) else len(names)
        ranked.append(Ranking(query, direction, rank, rank, 1, tuple((name, nan) for name in names[:TOP]), depth))
    return ranked


def _check_list(what: str, names: Sequence[str], candidates: Set[str]) -> None:
    unknown = set(names) - candidates
    if unknown:
        raise DataError(f"{what} holds {first_five(unknown)}: expected candidates of the gallery")
    if len(set(names)) < len(names):
        duplicates = [name for name, times in Counter(names).items() if times > 1]
        raise DataError(f"{what} holds {first_five(duplicates)} more than once: expected each candidate at most once")


def best(scores: ScoreMatrix, k: int) -> Iterator[tuple[Counts, ScoreMatrix]]:
    """For each row of scores [Q, C]: the columns of the k best, best first, ties in order, and their scores. Yields Q
    times two arrays [min(k, C)].
    """
    place = max(0, scores.shape[1] - k)
    for rows in _blocks(scores):
        block = _comparable(np.ascontiguousarray(scores[rows]))
        for row, least in zip(block, np.partition(block, place, axis=1)[:, place], strict=True):
            columns = np.flatnonzero(row >= least)
            chosen = columns[np.argsort(-row[columns], kind="stable")[:k]]
            yield chosen, row[chosen]


def _top(scores: ScoreMatrix, candidates: Sequence[str]) -> Iterator[tuple[tuple[str, float], ...]]:
    """The ids and scores of the `TOP` best candidates of each row."""
    for columns, values in best(scores, TOP):
        yield tuple(zip([candidates[column] for column in columns], values.tolist(), strict=True))


def _comparable(scores: ScoreMatrix) -> ScoreMatrix:
    """The same numbers, float16 as float32: processors have no comparison of half precision."""
    return scores.astype(np.float32) if scores.dtype == np.float16 else np.asarray(scores)


def _blocks(scores: ScoreMatrix) -> Iterator[slice]:
    rows, columns = scores.shape
    size = max(1, _SCORES_AT_ONCE // max(1, columns))
    return (slice(start, start + size) for start in range(0, rows, size))


def _reject_nan(block: ScoreMatrix, start: int) -> None:
    if np.isnan(block.min(initial=np.inf)):  # the minimum of numbers and NaN is NaN: one pass without a copy
        row, column = np.argwhere(np.isnan(block))[0]
        raise DataError(
            f"the score in row {start + row}, column {column} is not a number: expected one for each pair of image "
            f"(row) and text (column)"
        )


def _check(scores: ScoreMatrix, owner: Counts) -> None:
    if scores.dtype.kind != "f":
        raise DataError(f"scores are of type {scores.dtype}: expected floating-point numbers, so convert them first")
    if scores.ndim != 2 or owner.shape != scores.shape[1:]:
        raise DataError(
            f"scores have the shape {scores.shape} and owners {owner.shape}: expected [images, texts] and [texts]"
        )
    if owner.size and not 0 <= owner.min() <= owner.max() < len(scores):
        raise DataError(f"texts belong to rows {owner.min()} to {owner.max()}: expected rows below {len(scores):,}")
    texts = np.bincount(owner, minlength=len(scores))
    if not texts.all():
        raise DataError(f"the image in row {int(texts.argmin())} has no text: expected at least one for each")
