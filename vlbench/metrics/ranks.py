"""From the scores of every pair of picture and text, or from lists, to where each query's right answer stands.

Shapes: N pictures, M texts. Ranks are counted, not sorted: what is scored higher, and what is tied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from math import nan
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError, first_five
from vlbench.core.gallery import Gallery
from vlbench.core.results import Direction, Ranking

Scores: TypeAlias = NDArray[np.floating[Any]]
Counts: TypeAlias = NDArray[np.int64]

TOP = 11
"""The best that a ranking keeps: one more than R@10 looks at, so that both sides of its edge are known."""
_AT_ONCE = 1 << 20
"""Scores looked at together: few enough that what is made of them stays in the processor's caches."""


@dataclass(frozen=True)
class Ranks:
    """What stands before each query's best right answer: i2t_* are [N] for pictures, t2i_* are [M] for texts.

    low: wrong answers scored higher. high: those of equal score added. positives: how many right answers have the best
    one's score; a text has one picture only.
    """

    i2t_low: Counts
    i2t_high: Counts
    i2t_positives: Counts
    t2i_low: Counts
    t2i_high: Counts


def ranks(scores: Scores, owner: Counts) -> Ranks:
    """Count where the right answers stand among scores [N, M]; owner [M] is the row of each text's picture.

    A picture's rank is that of its best text; its other texts never count against it. Scores may be infinite, and may
    be a memory map: they are read once, in blocks of rows, and never copied whole.

    Raises:
        DataError: scores that are not floating point, shapes that do not fit, a picture without a text, or a score
            that is not a number, naming its row and column.
    """
    _check(scores, owner)
    own = _comparable(scores[owner, np.arange(len(owner))])  # [M]: of each text with its picture
    best = np.full(len(scores), -np.inf, own.dtype)
    with np.errstate(invalid="ignore"):  # what is not a number is found below, where its row and column are known
        np.maximum.at(best, owner, own)
    positives = np.bincount(owner, own == best[owner], len(scores)).astype(np.int64)
    i2t_low, i2t_level = np.empty(len(scores), np.int64), np.empty(len(scores), np.int64)
    t2i_low, t2i_level = np.zeros(len(owner), np.int64), np.zeros(len(owner), np.int64)
    for rows in _blocks(scores):
        block = _comparable(scores[rows])
        _refuse_nan(block, rows.start)
        i2t_low[rows] = np.count_nonzero(block > best[rows, None], axis=1)
        i2t_level[rows] = np.count_nonzero(block >= best[rows, None], axis=1)
        t2i_low += np.count_nonzero(block > own, axis=0)
        t2i_level += np.count_nonzero(block >= own, axis=0)
    return Ranks(i2t_low, i2t_level - positives, positives, t2i_low, t2i_level - 1)


def rankings(scores: Scores, gallery: Gallery, counted: Ranks) -> list[Ranking]:
    """What was counted as rankings, with the best of each query: all pictures, then all texts, in gallery order."""
    pictures, texts = [ref.key for ref in gallery.images], gallery.text_ids
    of_pictures = zip(
        pictures,
        counted.i2t_low.tolist(),
        counted.i2t_high.tolist(),
        counted.i2t_positives.tolist(),
        _top(scores, texts),
        strict=True,
    )
    of_texts = zip(texts, counted.t2i_low.tolist(), counted.t2i_high.tolist(), _top(scores.T, pictures), strict=True)
    return [
        *(Ranking(query, "i2t", low, high, positives, top) for query, low, high, positives, top in of_pictures),
        *(Ranking(query, "t2i", low, high, 1, top) for query, low, high, top in of_texts),
    ]


def from_matrix(scores: Scores, gallery: Gallery) -> list[Ranking]:
    """The rankings that scores [N, M] of a gallery's pictures and texts come to; raises as `ranks` does."""
    if scores.shape != (len(gallery.images), len(gallery.texts)):
        raise DataError(
            f"scores have the shape {scores.shape} where {len(gallery.images):,} pictures by {len(gallery.texts):,} "
            f"texts are expected: give one row per picture and one column per text, in the order of the gallery"
        )
    return rankings(scores, gallery, ranks(scores, np.asarray(gallery.owner, np.int64)))


def from_lists(lists: Mapping[str, Sequence[str]], direction: Direction, gallery: Gallery) -> list[Ranking]:
    """Rankings in one direction out of lists that have no scores: query id -> candidate ids, best first.

    A list need not hold every candidate. Where no right answer is in it, both ranks are its length and mean further
    down. A list has no ties, and the scores of its best are not numbers.

    Raises:
        DataError: a query or a candidate that is not of the gallery, or a candidate given twice.
    """
    pictures = [ref.key for ref in gallery.images]
    of_text = {text: pictures[row] for text, row in zip(gallery.text_ids, gallery.owner, strict=True)}
    both: tuple[Set[str], Set[str]] = (set(pictures), of_text.keys())
    queries, candidates = both if direction == "i2t" else both[::-1]
    found = []
    for query, names in lists.items():
        if query not in queries:
            raise DataError(f"{direction} list of {query!r}: expected a query of the gallery, which it is not")
        _check_list(f"{direction} list of {query!r}", names, candidates)
        right = (of_text[name] == query if direction == "i2t" else name == of_text[query] for name in names)
        rank = next((place for place, hit in enumerate(right) if hit), len(names))
        depth = None if len(names) == len(candidates) else len(names)
        found.append(Ranking(query, direction, rank, rank, 1, tuple((name, nan) for name in names[:TOP]), depth))
    return found


def _check_list(what: str, names: Sequence[str], candidates: Set[str]) -> None:
    strange = set(names) - candidates
    if strange:
        raise DataError(f"{what} holds {first_five(strange)}: expected candidates of the gallery")
    if len(set(names)) < len(names):
        twice = [name for name, times in Counter(names).items() if times > 1]
        raise DataError(f"{what} holds {first_five(twice)} more than once: expected each candidate at most once")


def best(scores: Scores, k: int) -> Iterator[tuple[Counts, Scores]]:
    """The `k` best candidates of each row of scores [Q, C], best first, ties in their order, and their scores."""
    place = max(0, scores.shape[1] - k)
    for rows in _blocks(scores):
        block = _comparable(np.ascontiguousarray(scores[rows]))
        for row, least in zip(block, np.partition(block, place, axis=1)[:, place], strict=True):
            among = np.flatnonzero(row >= least)
            chosen = among[np.argsort(-row[among], kind="stable")[:k]]
            yield chosen, row[chosen]


def _top(scores: Scores, candidates: Sequence[str]) -> Iterator[tuple[tuple[str, float], ...]]:
    """The `TOP` best candidates of each row by name."""
    for chosen, values in best(scores, TOP):
        yield tuple(zip([candidates[one] for one in chosen], values.tolist(), strict=True))


def _comparable(scores: Scores) -> Scores:
    """The same numbers, in a precision that processors compare: they have no half one."""
    return scores.astype(np.float32) if scores.dtype == np.float16 else np.asarray(scores)


def _blocks(scores: Scores) -> Iterator[slice]:
    rows, columns = scores.shape
    size = max(1, _AT_ONCE // max(1, columns))
    return (slice(start, start + size) for start in range(0, rows, size))


def _refuse_nan(block: Scores, start: int) -> None:
    if np.isnan(block.min(initial=np.inf)):  # the least of numbers and NaN is NaN: one pass, and nothing is stored
        row, column = np.argwhere(np.isnan(block))[0]
        raise DataError(
            f"the score in row {start + row}, column {column} is not a number: expected one for each pair of picture "
            f"(row) and text (column)"
        )


def _check(scores: Scores, owner: Counts) -> None:
    if scores.dtype.kind != "f":
        raise DataError(f"scores are of type {scores.dtype}: expected floating-point numbers, so convert them first")
    if scores.ndim != 2 or owner.shape != scores.shape[1:]:
        raise DataError(
            f"scores have the shape {scores.shape} and owners {owner.shape}: expected [pictures, texts] and [texts]"
        )
    if owner.size and not 0 <= owner.min() <= owner.max() < len(scores):
        raise DataError(f"texts belong to rows {owner.min()} to {owner.max()}: expected rows below {len(scores):,}")
    texts = np.bincount(owner, minlength=len(scores))
    if not texts.all():
        raise DataError(f"the picture in row {int(texts.argmin())} has no text: expected at least one for each")
