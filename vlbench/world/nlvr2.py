"""Export the world as NLVR2: official JSON lines and pictures, balanced so that neither words nor pictures alone help.

A set has eight scenes in four pairs, and two statements. The first is true of two of the pairs, the second of the
other two; each is false of the rest. So every statement is true as often as false, and so is every pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from vlbench.world.chance import shuffled, stream
from vlbench.world.pictures import Picture
from vlbench.world.phrases import say
from vlbench.world.scenes import Scene, Split
from vlbench.world.statements import KINDS, Kind, Statement, draw_statement, evaluate

SCENES_PER_SET = 8
EXAMPLES_PER_SET = 8
_BUCKETS = 100
_TRIES = 12

Pair = tuple[Scene, Scene]


@dataclass(frozen=True, slots=True)
class StatementSet:
    """Four pairs and two statements with their sentences; truths[s][p]: whether statement s is true of pair p."""

    pairs: tuple[Pair, ...]
    statements: tuple[Statement, Statement]
    sentences: tuple[str, str]
    truths: tuple[tuple[bool, ...], tuple[bool, ...]]


def make_sets(split: Split, scenes: Sequence[Scene], seed: int) -> Iterator[StatementSet]:
    """One set per eight scenes, in order; each kind of statement gets the same share of the split."""
    count = len(scenes) // SCENES_PER_SET
    kinds = shuffled(stream(seed, "nlvr2", split), [KINDS[n % len(KINDS)] for n in range(2 * count)])
    for number in range(count):
        rng = stream(seed, "nlvr2", split, number)
        own = scenes[number * SCENES_PER_SET : (number + 1) * SCENES_PER_SET]
        yield _make_set(own, kinds[2 * number], kinds[2 * number + 1], rng)


def _make_set(scenes: Sequence[Scene], first: Kind, second: Kind, rng: Random) -> StatementSet:
    """Pair the scenes anew until both kinds have a statement with the truths that balance needs."""
    while True:
        order = shuffled(rng, scenes)
        pairs = tuple(zip(order[::2], order[1::2], strict=True))
        truths = tuple(shuffled(rng, (True, True, False, False)))
        opposite = tuple(not truth for truth in truths)
        one = _find(first, pairs, truths, rng)
        other = one and _find(second, pairs, opposite, rng)
        if one and other:
            return StatementSet(pairs, (one, other), (say(one, rng), say(other, rng)), (truths, opposite))


def _find(kind: Kind, pairs: Sequence[Pair], truths: Sequence[bool], rng: Random) -> Statement | None:
    """A statement of that kind with exactly these truths of the pairs, if a few tries bring one."""
    for _ in range(_TRIES):
        statement = draw_statement(kind, rng)
        if all(evaluate(statement, *pair) == truth for pair, truth in zip(pairs, truths, strict=True)):
            return statement
    return None
