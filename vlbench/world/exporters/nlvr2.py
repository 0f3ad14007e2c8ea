"""Export the synthetic world as NLVR2: JSON lines and images, balanced so that neither text nor images suffice alone.

A set has eight scenes in four pairs, and two statements. The first statement is true of exactly two of the pairs, the
second of exactly the other two. So every statement is true of half of its pairs, and half of the statements about a
pair are true.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from vlbench.world.language.phrases import phrase_statement
from vlbench.world.language.statements import STATEMENT_KINDS, Statement, StatementKind, draw_statement, evaluate
from vlbench.world.output import ProgressCallback, with_progress, write_text
from vlbench.world.rng import deal, pick, shuffled, stream
from vlbench.world.scenes.images import ImagePlan, SceneImage
from vlbench.world.scenes.scene import Scene, Scenes, Split

TASK = "nlvr2"
TASK_SPLITS: dict[Split, str] = {"train": "train", "dev": "dev", "test1": "test-p", "test2": "test-u"}
"""The task card's names of the splits."""
SHARES: dict[StatementKind, int] = {
    "exists": 10, "both": 10, "either": 9, "crosswise": 9, "count": 9, "relation": 9, "every": 9, "position": 10,
    "absent": 6, "neither": 6, "total": 7, "more": 6,
}  # fmt: skip
"""Percent of the statements: more of the kinds that one match of word and thing decides, less of negations."""

SCENES_PER_SET = 8
EXAMPLES_PER_SET = 8
_BUCKETS = 100
_TRIES, _PAIRINGS = 24, 100

ScenePair = tuple[Scene, Scene]


@dataclass(frozen=True, slots=True)
class StatementSet:
    """Four pairs and two statements with their sentences; truths[s][p]: whether statement s is true of pair p."""

    pairs: tuple[ScenePair, ...]
    statements: tuple[Statement, Statement]
    sentences: tuple[str, str]
    truths: tuple[tuple[bool, ...], tuple[bool, ...]]


def make_sets(split: Split, scenes: Sequence[Scene], seed: int) -> Iterator[StatementSet]:
    """Yield one set per eight scenes, in order; each kind of statement gets its share of the split."""
    count = len(scenes) // SCENES_PER_SET
    kinds = deal(stream(seed, "nlvr2", split), SHARES, 2 * count)
    for number in range(count):
        rng = stream(seed, "nlvr2", split, number)
        set_scenes = scenes[number * SCENES_PER_SET : (number + 1) * SCENES_PER_SET]
        yield _make_set(set_scenes, (kinds[2 * number], kinds[2 * number + 1]), rng)


def _make_set(scenes: Sequence[Scene], kinds: tuple[StatementKind, StatementKind], rng: Random) -> StatementSet:
    """Pair the scenes at random until there is a statement of both kinds with balanced truth values."""
    pairing = 0
    while True:
        pairing += 1
        if pairing % _PAIRINGS == 0:  # a few sets of similar scenes have no balanced statement of some kinds
            kinds = pick(rng, STATEMENT_KINDS), pick(rng, STATEMENT_KINDS)
        order = shuffled(rng, scenes)
        pairs = tuple(zip(order[::2], order[1::2], strict=True))
        truths = tuple(shuffled(rng, (True, True, False, False)))
        opposite = tuple(not truth for truth in truths)
        first = _find_statement(kinds[0], pairs, truths, rng)
        second = first and _find_statement(kinds[1], pairs, opposite, rng)
        if first and second:
            sentences = phrase_statement(first, rng), phrase_statement(second, rng)
            return StatementSet(pairs, (first, second), sentences, (truths, opposite))


def _find_statement(
    kind: StatementKind, pairs: Sequence[ScenePair], truths: Sequence[bool], rng: Random
) -> Statement | None:
    """A statement of that kind with exactly these truth values for the pairs; None if `_TRIES` attempts find none."""
    for _ in range(_TRIES):
        statement = draw_statement(kind, rng)
        if all(evaluate(statement, *pair) == truth for pair, truth in zip(pairs, truths, strict=True)):
            return statement
    return None


def export(folder: Path, scenes: Scenes, seed: int, plan: ImagePlan, progress: ProgressCallback) -> dict[str, int]:
    """Write the task's files to its folder, and plan its images and region features.

    Returns: the number of examples of each split, under the task card's names.
    """
    counts = {}
    for split, split_scenes in scenes.items():
        name, number = TASK_SPLITS[split], len(split_scenes) // SCENES_PER_SET
        sets = with_progress(make_sets(split, split_scenes, seed), number, f"statements of {name}", progress)
        plan.add(folder / "features" / f"{split}.tsv", _write_annotations(folder, split, sets))
        counts[name] = number * EXAMPLES_PER_SET
    return counts


def _write_annotations(folder: Path, split: Split, sets: Iterable[StatementSet]) -> list[SceneImage]:
    """Write `data/{split}.json`; return the images that belong to it."""
    lines: list[str] = []
    images: list[SceneImage] = []
    for number, statement_set in enumerate(sets):
        lines.extend(json.dumps(line) + "\n" for line in _lines(split, number, statement_set))
        images.extend(_images(folder, split, number, statement_set))
    write_text(folder / "data" / f"{split}.json", "".join(lines))
    return images


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


def _images(folder: Path, split: Split, number: int, statement_set: StatementSet) -> Iterator[SceneImage]:
    image_folder = folder / "images" / split
    if split == "train":
        image_folder /= str(number % _BUCKETS)
    for place, pair in enumerate(statement_set.pairs):
        for slot, scene in enumerate(pair):
            key = f"{split}-{number}-{place}-img{slot}"
            yield SceneImage(scene, image_folder / f"{key}.png", key)
