"""The part of a split that a limit leaves: drawn by chance that has a name, the same whatever the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from vlbench.core.examples import Example
from vlbench.core.spec import RunSpec

Examples = Sequence[Example[Any]]


def limited(examples: Examples, spec: RunSpec, whole: bool = False) -> Examples:
    """The part of the reported split that `limit` asks for, in its order; the same whatever the seed.

    whole: picture by picture with all its texts, which is what a limit counts where a gallery is ranked.
    """
    if spec.limit is None:
        return examples
    units = _units(examples, whole)
    wanted = round(spec.limit * len(units)) if spec.limit < 1 else int(spec.limit)
    return _part(examples, units, max(1, wanted), f"limit of {spec.split}" if spec.limit_mode == "random" else "")


def selected_on(examples: Examples, spec: RunSpec, whole: bool) -> tuple[Examples, tuple[str, ...]]:
    """The part of the selection split that `select_limit` leaves, the same whatever the seed, and a note of it.

    Of a ranking every pair counts, so a thousand pictures with five texts each are five million of them already.
    """
    most = spec.select_limit
    units = _units(examples, whole) if most is not None else []
    if most is None or len(units) <= most:
        return examples, ()
    what = "pictures" if whole else "examples"
    note = f"selected on {most:,} of {len(units):,} {what} of {spec.select_on}, chosen at random (--select-limit)"
    return _part(examples, units, most, f"selection on {spec.select_on}"), (note,)


def _units(examples: Examples, whole: bool) -> list[list[int]]:
    """The rows of each example or, with `whole`, of each group."""
    units: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        units.setdefault(example.group if whole else example.id, []).append(row)
    return list(units.values())


def _part(examples: Examples, units: list[list[int]], wanted: int, chance: str) -> Examples:
    """So many of the units, in their order: drawn by the stream that `chance` names, or the first ones."""
    count = min(wanted, len(units))
    chosen = sorted(random.Random(chance).sample(range(len(units)), count)) if chance else range(count)
    return [examples[row] for unit in chosen for row in units[unit]]
