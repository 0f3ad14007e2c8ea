"""Pictures that one task trains on and another one asks about: counted where both are at hand, else as cards tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vlbench.core.cards import TaskCard
from vlbench.core.task import Task
from vlbench.data.splits.overlap import Contents, Digests, shared


@dataclass(frozen=True)
class FoundLeak:
    """A split whose pictures a model has seen that was trained on `other` of `task`.

    pictures: how many different images of the split, None where nobody has counted them. counted: measured here, in the
    data; else as the task's card says, which knows it from `source`, `verified` or not. names: of the images that both
    hold, and pairs of copies, where they were measured here.
    """

    split: str
    task: str
    other: str
    pictures: int | None
    counted: bool
    verified: bool
    source: str
    names: tuple[str, ...] = ()


def leaks(
    task: Task, contents: Mapping[str, Sequence[Contents]], cards: Mapping[str, TaskCard], known: Digests
) -> list[FoundLeak]:
    """What of this task's pictures other tasks train on.

    Args:
        task: the task that is asked about.
        contents: task -> its splits that were read, this one's among them.
        cards: of those tasks.
        known: the digests of all their pictures.
    """
    found = [leak for one in contents[task.card.name] for leak in _counted(task.card, one, contents, cards, known)]
    seen = {(leak.split, leak.task, leak.other) for leak in found}
    return [leak for leak in found if leak.pictures] + [
        FoundLeak(told.split, told.task, told.other, told.pictures, False, told.verified, told.source)
        for told in (task.card.leaks if task.source == "real" else ())
        if told.split in {one.split for one in contents[task.card.name]}
        and (told.split, told.task, told.other) not in seen
    ]


def _counted(
    card: TaskCard,
    one: Contents,
    contents: Mapping[str, Sequence[Contents]],
    cards: Mapping[str, TaskCard],
    known: Digests,
) -> Iterator[FoundLeak]:
    """What was looked for, also where nothing was found: in train splits, and in those that the card names."""
    told = {(leak.task, leak.other) for leak in card.leaks if leak.split == one.split}
    for name, splits in contents.items():
        for other in splits if name != card.name and one.split != card.train_split else ():
            if other.split != cards[name].train_split and (name, other.split) not in told:
                continue
            by_name = bool(set(card.siblings) & set(cards[name].siblings))
            both = shared(one, other, known, by_name)
            names = (*both.pictures, *both.copies)
            if not names and not (by_name or (_comparable(one, known) and _comparable(other, known))):
                continue  # nobody looked: what the card says of it stays
            images = len({*both.pictures, *both.copied})  # an image may be in several pairs of copies
            yield FoundLeak(one.split, name, other.split, images, True, True, "measured in this data", names)


def _comparable(one: Contents, known: Digests) -> bool:
    """Whether every picture of a split, of one that has any, can be told from others by its bytes."""
    return bool(one.pictures) and all(path in known for path in one.pictures.values())
