"""CPU time and memory of retrieval ranks over as many pictures and texts as COCO's 5K test has, beside sorting them.

Run as `python benchmarks/retrieval_ranks.py`. Both sides rank the same random float32 scores in one process, in turn,
in both directions. Sorting does so the usual way, one `numpy.argsort` per query, and knows one order of ties; counting
finds what is higher and what is level, for all tie rules. `rankings` is counting with the ten best of every query.
"""

from __future__ import annotations

import argparse
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sides import Side, measure, ratios, spread

from vlbench.core.examples import ImageRef
from vlbench.core.gallery import Gallery
from vlbench.metrics.ranks import from_matrix, ranks

PICTURES, TEXTS_EACH = 5_000, 5

Scores = NDArray[np.floating[Any]]
Counts = NDArray[np.int64]


def main() -> None:
    """Check that both sides agree, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--repeats", type=int, default=7)
    wanted = parser.parse_args()
    scores, owner = generated(wanted.pictures)
    compare(scores, owner)

    gallery = gallery_of(owner)
    sides: dict[str, Side] = {
        "two argsorts": lambda: by_sorting(scores, owner),
        "ranks": lambda: ranks(scores, owner),
        "rankings": lambda: from_matrix(scores, gallery),
    }
    report(scores, measure(sides, wanted.repeats))
    for name, side in sides.items():
        print(f"{name}: at most {peak(side) / scores.nbytes:.3f} of the scores' {scores.nbytes / 2**20:.0f} MiB more")


def generated(pictures: int, seed: int = 0) -> tuple[Scores, Counts]:
    """Normal scores, right pairs two higher than others; rounding to float32 leaves few ties."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(pictures), TEXTS_EACH)
    scores = generator.standard_normal((pictures, len(owner)), np.float32)
    scores[owner, np.arange(len(owner))] += 2
    return scores, owner


def gallery_of(owner: Counts) -> Gallery:
    """Names for rows and columns."""
    pictures = [ImageRef(Path(), f"picture {row}") for row in range(int(owner.max()) + 1)]
    texts = [f"text {column}" for column in range(len(owner))]
    return Gallery("", pictures, texts, texts, owner.tolist())


def by_sorting(scores: Scores, owner: Counts) -> tuple[list[int], list[int]]:
    """The rank of each picture's best text, and of each text's picture, among all candidates in descending order."""
    first_text = [int(np.argmax(owner[np.argsort(-row)] == at)) for at, row in enumerate(scores)]
    picture = [int(np.argmax(np.argsort(-column) == owner[at])) for at, column in enumerate(scores.T)]
    return first_text, picture


def compare(scores: Scores, owner: Counts) -> None:
    """Stop where sorting finds a rank outside of what counting allows."""
    counted = ranks(scores, owner)
    bounds = ((counted.i2t_low, counted.i2t_high), (counted.t2i_low, counted.t2i_high))
    for sorted_ranks, (low, high) in zip(by_sorting(scores, owner), bounds, strict=True):
        outside = np.flatnonzero((sorted_ranks < low) | (sorted_ranks > high))
        if outside.size:
            raise SystemExit(f"the two sides differ in {outside.size:,} queries, such as {outside[:5].tolist()}")
    tied = sum(int((high > low).sum()) for low, high in bounds)
    print(f"both agree on {scores.shape[0] + scores.shape[1]:,} queries; {tied:,} have ties")


def peak(side: Side) -> int:
    """Most bytes that one call holds at once, the scores apart."""
    tracemalloc.start()
    side()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def report(scores: Scores, seconds: dict[str, list[float]]) -> None:
    """Median and range of each side, and of its ratio to sorting in the same round."""
    base, *others = seconds
    for name, taken in seconds.items():
        print(f"{name}: {spread(taken)} CPU-s for {scores.shape} scores, {len(taken)} repeats")
    for name in others:
        print(f"{base} / {name}: {spread(ratios({base: seconds[base], name: seconds[name]}))}")


if __name__ == "__main__":
    main()
