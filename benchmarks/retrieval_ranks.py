"""CPU time and memory of retrieval ranks for a gallery of the size of COCO's 5K test, compared with sorting.

Run as `python benchmarks/retrieval_ranks.py`. Both sides rank the same random float32 scores in one process, in turn,
in both directions. Sorting is one `numpy.argsort` per query, which gives one order of ties; counting finds how many
scores are higher and how many are equal, for all tie rules. `rankings` is counting plus the ten best candidates;
`two stages` also reorders the 16 best of each query by another score, for every smaller number of them.
"""

from __future__ import annotations

import argparse
import tracemalloc
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sides import Side, format_spread, measure, paired_ratios

from vlbench.core.examples import ImageRef
from vlbench.core.gallery import Gallery
from vlbench.metrics.ranks import from_matrix, ranks
from vlbench.metrics.shortlists import in_two_stages

IMAGES, TEXTS_EACH = 5_000, 5
SHORTLIST = 16
QUICK_IMAGES = 1_500
QUICK = True

Scores = NDArray[np.float32]
Counts = NDArray[np.int64]


def main() -> None:
    """Check that both sides agree, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--repeats", type=int, default=7)
    wanted = parser.parse_args()
    scores, owner = generate_scores(wanted.images)
    compare(scores, owner)
    sides = sides_of(scores, owner)
    report(scores, measure(sides, wanted.repeats))
    for name, side in sides.items():
        print(f"{name}: peak memory {peak(side) / scores.nbytes:.3f} of the {scores.nbytes / 2**20:.0f} MiB of scores")


def ratios(repeats: int) -> dict[str, list[float]]:
    """The time of sorting over that of each other side, for each repeat, for a smaller gallery."""
    scores, owner = generate_scores(QUICK_IMAGES)
    compare(scores, owner)
    return by_base(measure(sides_of(scores, owner), repeats))


def by_base(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """The ratios of sorting to the sides that do the same."""
    pairs = {
        name: "argsorts, reranked" if name == "two stages" else "two argsorts"
        for name in ("ranks", "rankings", "two stages")
    }
    return {
        f"{base} / {name}": paired_ratios({base: seconds[base], name: seconds[name]}) for name, base in pairs.items()
    }


def sides_of(scores: Scores, owner: Counts) -> dict[str, Side]:
    """What is compared, sorting and this."""
    gallery = gallery_of(owner)
    return {
        "two argsorts": lambda: by_sorting(scores, owner),
        "ranks": lambda: ranks(scores, owner),
        "rankings": lambda: from_matrix(scores, gallery),
        "argsorts, reranked": lambda: rerank_by_sorting(scores),
        "two stages": lambda: in_two_stages(scores, gallery, SHORTLIST, slow_scores),
    }


def rerank_by_sorting(scores: Scores) -> list[Counts]:
    """The shortlist of each image and of each text, best first by the other score."""
    shortlists = []
    for number, row in enumerate(scores):
        best = np.argsort(-row)[:SHORTLIST]
        shortlists.append(best[np.argsort(-slow_scores(np.full(len(best), number), best))])
    for number, column in enumerate(scores.T):
        best = np.argsort(-column)[:SHORTLIST]
        shortlists.append(best[np.argsort(-slow_scores(best, np.full(len(best), number)))])
    return shortlists


def slow_scores(rows: Counts, columns: Counts) -> Scores:
    """Other scores of pairs, which cost next to nothing."""
    return np.sin(rows * 1.3 + columns * 7.7).astype(np.float32)


def generate_scores(images: int, seed: int = 0) -> tuple[Scores, Counts]:
    """Scores [images, texts] from a normal distribution, 2 higher for right pairs, and the image of each text."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), TEXTS_EACH)
    scores = rng.standard_normal((images, len(owner)), np.float32)
    scores[owner, np.arange(len(owner))] += 2
    return scores, owner


def gallery_of(owner: Counts) -> Gallery:
    """A gallery with generated names for rows and columns."""
    images = [ImageRef(Path(), f"image {row}") for row in range(int(owner.max()) + 1)]
    texts = [f"text {column}" for column in range(len(owner))]
    return Gallery("", images, texts, texts, owner.tolist())


def by_sorting(scores: Scores, owner: Counts) -> tuple[list[int], list[int]]:
    """The rank of each image's best text, and of each text's image, among all candidates in descending order."""
    text_ranks = [int(np.argmax(owner[np.argsort(-row)] == at)) for at, row in enumerate(scores)]
    image_ranks = [int(np.argmax(np.argsort(-column) == owner[at])) for at, column in enumerate(scores.T)]
    return text_ranks, image_ranks


def compare(scores: Scores, owner: Counts) -> None:
    """Stop if sorting gives a rank outside the range that counting gives."""
    counted = ranks(scores, owner)
    bounds = ((counted.i2t_low, counted.i2t_high), (counted.t2i_low, counted.t2i_high))
    for sorted_ranks, (low, high) in zip(by_sorting(scores, owner), bounds, strict=True):
        outside = np.flatnonzero((sorted_ranks < low) | (sorted_ranks > high))
        if outside.size:
            raise SystemExit(f"the sides differ in {outside.size:,} queries, such as {outside[:5].tolist()}")
    tied = sum(int((high > low).sum()) for low, high in bounds)
    print(f"the sides agree on {scores.shape[0] + scores.shape[1]:,} queries; {tied:,} have ties")


def peak(side: Side) -> int:
    """Peak memory of one call in bytes, without the scores."""
    tracemalloc.start()
    side()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def report(scores: Scores, seconds: dict[str, list[float]]) -> None:
    """Print median and range of each side, and of the ratios to sorting in the same repeat."""
    for name, taken in seconds.items():
        print(f"{name}: {format_spread(taken)} CPU-s for {scores.shape} scores, {len(taken)} repeats")
    for name, values in by_base(seconds).items():
        print(f"{name}: {format_spread(values)}")


if __name__ == "__main__":
    main()
