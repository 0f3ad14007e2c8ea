"""Check that the splits of a run do not overlap: the examples it trains on, selects on and reports on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from vlbench.core.errors import VlbenchError, first_five
from vlbench.core.examples import Examples
from vlbench.core.spec import ResolvedSpec
from vlbench.core.splits import joined
from vlbench.core.task import ids_of

_SELECT = "another --select-on, or none for the last checkpoint"
_REPORT = "another --split"


def check_split_overlap(
    spec: ResolvedSpec, trained: Mapping[str, Examples], select: Examples, report: Examples
) -> None:
    """Check by id that no example is used twice: some official splits are parts of others.

    trained: split -> examples, of all splits that the run trains on. select, report: the complete examples of
    `spec.select_on` and `spec.split`.

    Raises:
        VlbenchError: two splits share examples; the message names all overlaps and the flags that help.
    """
    train = f"another --train-split than {joined(spec.train_split)}"
    ids = {name: set(ids_of(examples)) for name, examples in trained.items()}
    selected, reported = set(ids_of(select)), set(ids_of(report))
    check_unique_ids("--train-split", ids)
    overlaps: list[tuple[str, tuple[str, ...]]] = []
    for name, own in ids.items():
        overlaps += _overlap(f"--select-on {spec.select_on}", name, "trained", selected & own, (_SELECT, train))
        overlaps += _overlap(f"--split {spec.split}", name, "trained", reported & own, (train, _REPORT))
    select_on = spec.select_on
    overlaps += _overlap(f"--split {spec.split}", select_on, "selected", reported & selected, (_SELECT, _REPORT))
    if overlaps:
        remedies = dict.fromkeys(remedy for _, remedies in overlaps for remedy in remedies)
        raise VlbenchError(f"{'; '.join(text for text, _ in overlaps)}: give {', or '.join(remedies)}")


def check_unique_ids(flag: str, ids: Mapping[str, set[str]]) -> None:
    """Raise a VlbenchError if two training splits share an id. flag: names the splits. ids: split -> ids."""
    for earlier, name in combinations(ids, 2):
        if shared := ids[earlier] & ids[name]:
            raise VlbenchError(
                f"{flag} {','.join(ids)}: {name!r} shares {len(shared):,} examples with {earlier!r} "
                f"({first_five(shared)}), and each is trained on once: leave one of the splits out"
            )


def _overlap(
    flag: str, split: str, use: str, shared: set[str], remedies: tuple[str, ...]
) -> list[tuple[str, tuple[str, ...]]]:
    """A sentence about the ids shared with a split that the model is trained or selected on, and its remedies."""
    if not shared:
        return []
    named = f"{flag} shares {len(shared):,} examples with {split!r} ({first_five(shared)})"
    return [(f"{named}, which the model is {use} on", remedies)]
