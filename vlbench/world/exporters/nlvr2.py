"""Export the world as NLVR2: official JSON lines and pictures, balanced so that neither words nor pictures alone help.

A set has eight scenes in four pairs, and two statements. The first is true of two of the pairs, the second of the
other two; each is false of the rest. So every statement is true as often as false, and so is every pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from vlbench.core.domain import Domain
from vlbench.data.regions.tsv import write_tsv
from vlbench.world.language.phrases import say
from vlbench.world.language.statements import KINDS, Kind, Statement, draw_statement, evaluate
from vlbench.world.progress import Progress, counted
from vlbench.world.rng import pick, shuffled, stream
from vlbench.world.scenes.images import Picture, make_pictures
from vlbench.world.scenes.scene import Scene, Split

TASK = "nlvr2"
TASK_SPLITS: dict[Split, str] = {"train": "train", "dev": "dev", "test1": "test-p", "test2": "test-u"}
"""The task card's names of the splits."""
SHARES: dict[Kind, int] = {
    "exists": 10, "both": 10, "either": 9, "crosswise": 9, "count": 9, "relation": 9, "every": 9, "position": 10,
    "absent": 6, "neither": 6, "total": 7, "more": 6,
}  # fmt: skip
"""Percent of the statements: more of what one match of word and thing decides, less of what turns it round."""

SCENES_PER_SET = 8
EXAMPLES_PER_SET = 8
_BUCKETS = 100
_TRIES, _PAIRINGS = 24, 100

Pair = tuple[Scene, Scene]


@dataclass(frozen=True, slots=True)
class StatementSet:
    """Four pairs and two statements with their sentences; truths[s][p]: whether statement s is true of pair p."""

    pairs: tuple[Pair, ...]
    statements: tuple[Statement, Statement]
    sentences: tuple[str, str]
    truths: tuple[tuple[bool, ...], tuple[bool, ...]]


def make_sets(split: Split, scenes: Sequence[Scene], seed: int) -> Iterator[StatementSet]:
    """One set per eight scenes, in order; each kind of statement gets its share of the split."""
    count = len(scenes) // SCENES_PER_SET
    deck = [kind for kind, share in SHARES.items() for _ in range(share)]
    kinds = shuffled(stream(seed, "nlvr2", split), [deck[n * len(deck) // (2 * count)] for n in range(2 * count)])
    for number in range(count):
        rng = stream(seed, "nlvr2", split, number)
        own = scenes[number * SCENES_PER_SET : (number + 1) * SCENES_PER_SET]
        yield _make_set(own, (kinds[2 * number], kinds[2 * number + 1]), rng)


def _make_set(scenes: Sequence[Scene], kinds: tuple[Kind, Kind], rng: Random) -> StatementSet:
    """Pair the scenes anew until both kinds have a statement with the truths that balance needs."""
    pairing = 0
    while True:
        pairing += 1
        if pairing % _PAIRINGS == 0:  # of a few scenes, too much alike, nothing of some kinds can be said
            kinds = pick(rng, KINDS), pick(rng, KINDS)
        order = shuffled(rng, scenes)
        pairs = tuple(zip(order[::2], order[1::2], strict=True))
        truths = tuple(shuffled(rng, (True, True, False, False)))
        opposite = tuple(not truth for truth in truths)
        one = _find(kinds[0], pairs, truths, rng)
        other = one and _find(kinds[1], pairs, opposite, rng)
        if one and other:
            return StatementSet(pairs, (one, other), (say(one, rng), say(other, rng)), (truths, opposite))


def _find(kind: Kind, pairs: Sequence[Pair], truths: Sequence[bool], rng: Random) -> Statement | None:
    """A statement of that kind with exactly these truths of the pairs, if a few tries bring one."""
    for _ in range(_TRIES):
        statement = draw_statement(kind, rng)
        if all(evaluate(statement, *pair) == truth for pair, truth in zip(pairs, truths, strict=True)):
            return statement
    return None


def export(
    folder: Path, scenes: Mapping[Split, Sequence[Scene]], domain: Domain, seed: int, progress: Progress
) -> dict[str, int]:
    """Write the task to its folder; how many examples each split has, under the task card's names."""
    counts = {}
    for split, own in scenes.items():
        name = TASK_SPLITS[split]
        sets = counted(make_sets(split, own, seed), len(own) // SCENES_PER_SET, f"statements of {name}", progress)
        pictures = _write_annotations(folder, split, sets)
        regions = counted(make_pictures(pictures, domain, seed), len(pictures), f"pictures of {name}", progress)
        write_tsv(folder / "features" / f"{split}.tsv", regions)
        counts[name] = len(own) // SCENES_PER_SET * EXAMPLES_PER_SET
    return counts


def _write_annotations(folder: Path, split: Split, sets: Iterable[StatementSet]) -> list[Picture]:
    """Write `data/{split}.json` and say which pictures belong to it."""
    pictures: list[Picture] = []
    annotations = folder / "data" / f"{split}.json"
    annotations.parent.mkdir(parents=True, exist_ok=True)
    with annotations.open("w", encoding="utf-8", newline="\n") as file:
        for number, statement_set in enumerate(sets):
            file.writelines(json.dumps(line) + "\n" for line in _lines(split, number, statement_set))
            pictures.extend(_pictures(folder, split, number, statement_set))
    return pictures


def _lines(split: Split, number: int, statement_set: StatementSet) -> Iterator[dict[str, object]]:
    for position, statement in enumerate(statement_set.statements):
        for place, (left, right) in enumerate(statement_set.pairs):
            label = str(statement_set.truths[position][place])
            line: dict[str, object] = {
                "validation": {"world": label},
                "sentence": statement_set.sentences[position],
                "left_url": f"world:{left.id}",
                "writer": "world",
                "label": label,
                "right_url": f"world:{right.id}",
                "synset": "shape",
                "query": "coloured shapes",
                "identifier": f"{split}-{number}-{place}-{position}",
                "kind": statement.kind,
            }
            if split == "train":
                line["directory"] = number % _BUCKETS
            else:
                line["extra_validations"] = {"solver": label}
            yield line


def _pictures(folder: Path, split: Split, number: int, statement_set: StatementSet) -> Iterator[Picture]:
    images = folder / "images" / split
    if split == "train":
        images /= str(number % _BUCKETS)
    for place, pair in enumerate(statement_set.pairs):
        for slot, scene in enumerate(pair):
            key = f"{split}-{number}-{place}-img{slot}"
            yield Picture(scene, images / f"{key}.png", key)
