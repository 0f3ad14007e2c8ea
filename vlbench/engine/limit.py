"""Random samples of a split: the part that a limit leaves, and the few-shot examples of a prompt."""

from __future__ import annotations

import random

from vlbench.core.columns import columns_of, take
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Examples, consensus_of
from vlbench.core.spec import RunSpec
from vlbench.core.splits import joined
from vlbench.core.task import ids_of


def limit_examples(examples: Examples, spec: RunSpec, whole: bool = False) -> Examples:
    """The part of the reported split that `limit` leaves, in its order; the same for every seed of a run.

    whole: count images, each with all its texts, as for retrieval.
    """
    if spec.limit is None:
        return examples
    units = _units(examples, whole)
    wanted = round(spec.limit * len(units)) if spec.limit < 1 else int(spec.limit)
    return _part(examples, units, max(1, wanted), f"limit of {spec.split}" if spec.limit_mode == "random" else "")


def limit_selection(examples: Examples, spec: RunSpec, whole: bool) -> tuple[Examples, tuple[str, ...]]:
    """The part of the selection split that `select_limit` leaves, the same for every seed, and a note about it.

    Retrieval scores every pair: a thousand images with five texts each are already five million pairs.
    """
    most = spec.select_limit
    units = _units(examples, whole) if most is not None else []
    if most is None or len(units) <= most:
        return examples, ()
    unit = "images" if whole else "examples"
    note = f"selected on {most:,} of {len(units):,} {unit} of {spec.select_on}, chosen at random (--select-limit)"
    return _part(examples, units, most, f"selection on {spec.select_on}"), (note,)


def _units(examples: Examples, whole: bool) -> list[list[int]]:
    """The rows of each example or, with `whole`, of each group."""
    units: dict[str, list[int]] = {}
    names = columns_of(examples).groups if whole else ids_of(examples)
    for row, name in enumerate(names):
        units.setdefault(name, []).append(row)
    return list(units.values())


def _part(examples: Examples, units: list[list[int]], wanted: int, seed: str) -> Examples:
    """`wanted` of the units, in their order: a random sample seeded by `seed`, or the first ones if it is empty."""
    count = min(wanted, len(units))
    chosen = sorted(random.Random(seed).sample(range(len(units)), count)) if seed else range(count)
    return take(examples, [row for unit in chosen for row in units[unit]])


def draw_shots(spec: RunSpec, train: Examples) -> Examples:
    """Examples of the train split for the prompts of a generative model, drawn by the seed, the same for all.

    Raises:
        VlbenchError: too few of them have an answer.
    """
    if not spec.num_fewshot:
        return ()
    order = random.Random(f"{spec.seed}/shots").sample(range(len(train)), len(train))
    answered = (train[row] for row in order if consensus_of(train[row]))
    shots = tuple(example for example, _ in zip(answered, range(spec.num_fewshot), strict=False))
    if len(shots) < spec.num_fewshot:
        raise VlbenchError(
            f"--num-fewshot {spec.num_fewshot} is more than the {len(shots):,} examples of "
            f"{joined(spec.train_split)!r} that have an answer: give fewer, or another --train-split"
        )
    return shots
