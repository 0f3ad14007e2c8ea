"""Random numbers that are the same on every machine and Python version: named streams that use only `random()`.

`choice`, `shuffle` and `randrange` have changed their results between Python versions; `random()` never has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


def stream(*names: str | int) -> Random:
    """An independent random generator for one purpose, e.g. `stream(seed, "scenes", "train")`."""
    return Random("/".join(map(str, names)))


def below(rng: Random, n: int) -> int:
    """A uniform integer in [0, n)."""
    return int(rng.random() * n)


def pick(rng: Random, items: Sequence[Item]) -> Item:
    """One of the items, with equal probability."""
    return items[int(rng.random() * len(items))]


def deal(rng: Random, shares: Mapping[Item, int], count: int) -> list[Item]:
    """`count` items in random order, each as often as its share of the sum of `shares` says."""
    deck = [item for item, share in shares.items() for _ in range(share)]
    return shuffled(rng, [deck[n * len(deck) // count] for n in range(count)])


def shuffled(rng: Random, items: Sequence[Item]) -> list[Item]:
    """The items in random order (Fisher-Yates)."""
    order, random = list(items), rng.random
    for last in range(len(order) - 1, 0, -1):
        other = int(random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order
