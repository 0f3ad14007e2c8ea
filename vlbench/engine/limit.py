"""The part of a split that a limit leaves: a random sample with a fixed seed, the same for every seed of a run."""

from __future__ import annotations

import random

from vlbench.core.examples import Examples
from vlbench.core.spec import RunSpec


def limit_examples(examples: Examples, spec: RunSpec, whole: bool = False) -> Examples:
    """The part of the reported split that `limit` leaves, in its order; the same for every seed.

    whole: count images, each with all its texts, which is the unit of a limit for a ranking task.
    """
    if spec.limit is None:
        return examples
    units = _units(examples, whole)
    wanted = round(spec.limit * len(units)) if spec.limit < 1 else int(spec.limit)
    return _part(examples, units, max(1, wanted), f"limit of {spec.split}" if spec.limit_mode == "random" else "")


def limit_selection(examples: Examples, spec: RunSpec, whole: bool) -> tuple[Examples, tuple[str, ...]]:
    """The part of the selection split that `select_limit` leaves, the same for every seed, and a note about it.

    A ranking task scores every pair, and a thousand images with five texts each are already five million pairs.
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
    for row, example in enumerate(examples):
        units.setdefault(example.group if whole else example.id, []).append(row)
    return list(units.values())


def _part(examples: Examples, units: list[list[int]], wanted: int, seed: str) -> Examples:
    """`wanted` of the units, in their order: a random sample seeded by `seed`, or the first ones if it is empty."""
    count = min(wanted, len(units))
    chosen = sorted(random.Random(seed).sample(range(len(units)), count)) if seed else range(count)
    return [examples[row] for unit in chosen for row in units[unit]]
