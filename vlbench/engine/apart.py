"""Splits of one run that must be apart, by id: what is trained, selected and reported on."""

from __future__ import annotations

from collections.abc import Mapping

from vlbench.core.errors import VlbenchError, first_five
from vlbench.core.spec import RunSpec
from vlbench.core.splits import joined
from vlbench.core.task import ids_of
from vlbench.engine.limit import Examples

_SELECT = "another --select-on, or none for the last checkpoint"
_REPORT = "another --split"


def check_apart(spec: RunSpec, trained: Mapping[str, Examples], select: Examples, report: Examples) -> None:
    """Check that no example is used twice, by id: some official splits are parts of others.

    Args:
        spec: the resolved spec, which names the splits.
        trained: split -> examples, of all splits that the run trains on.
        select, report: the examples of `spec.select_on` and `spec.split`, the whole splits.

    Raises:
        VlbenchError: two of the training splits hold the same id, or one of them holds examples that the run selects or
            reports on, or it selects on examples that it reports on; all overlaps at once, with the flags that help.
    """
    train = f"another --train-split than {joined(spec.train_split)}"
    ids = {name: set(ids_of(examples)) for name, examples in trained.items()}
    selected, reported = set(ids_of(select)), set(ids_of(report))
    check_once("--train-split", ids)
    found: list[tuple[str, tuple[str, ...]]] = []
    for name, own in ids.items():
        found += _clash(f"--select-on {spec.select_on}", name, "trained", selected & own, (_SELECT, train))
        found += _clash(f"--split {spec.split}", name, "trained", reported & own, (train, _REPORT))
    select_on = str(spec.select_on)
    found += _clash(f"--split {spec.split}", select_on, "selected", reported & selected, (_SELECT, _REPORT))
    if found:
        remedies = dict.fromkeys(remedy for _, remedies in found for remedy in remedies)
        raise VlbenchError(f"{'; '.join(text for text, _ in found)}: give {', or '.join(remedies)}")


def check_once(flag: str, ids: Mapping[str, set[str]]) -> None:
    """Check that no two splits hold the same id: such an example would be seen twice as often as the others.

    Raises:
        VlbenchError: two of them do; flag: names the splits in the message.
    """
    names = list(ids)
    for place, name in enumerate(names):
        for earlier in names[:place]:
            if shared := ids[earlier] & ids[name]:
                raise VlbenchError(
                    f"{flag} {','.join(names)}: {name!r} shares {len(shared):,} examples with {earlier!r} "
                    f"({first_five(shared)}), and each is trained on once: leave one of the splits out"
                )


def _clash(
    flag: str, split: str, use: str, shared: set[str], remedies: tuple[str, ...]
) -> list[tuple[str, tuple[str, ...]]]:
    """The sentence about the ids shared with a split that the model is trained or selected on, and what helps."""
    if not shared:
        return []
    named = f"{flag} shares {len(shared):,} examples with {split!r} ({first_five(shared)})"
    return [(f"{named}, which the model is {use} on", remedies)]
