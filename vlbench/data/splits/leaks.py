"""Find images of a split that another task trains on: counted if both are available, else as stated on cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vlbench.core.cards import TaskCard
from vlbench.core.task import Task
from vlbench.data.splits.overlap import Contents, Digests, shared


@dataclass(frozen=True)
class FoundLeak:
    """A split that shares images with split `other` of `task`, on which a model may be trained.

    pictures: the number of distinct shared images; None if unknown. counted: whether it was counted in the data;
    else it is from the task's card, which cites `source`, `verified` or not. names: of the shared images and pairs of
    copies, if counted.
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
    task: Task, contents: Mapping[str, Sequence[Contents]], cards: Mapping[str, TaskCard], digest_of: Digests
) -> list[FoundLeak]:
    """Find the images of a task's splits that other tasks train on.

    contents: task name -> the contents of its splits, including those of `task`. cards, digest_of: of all those tasks.
    """
    own = contents[task.card.name]
    counted = [leak for split in own for leak in _counted(task.card, split, contents, cards, digest_of)]
    compared = {(leak.split, leak.task, leak.other) for leak in counted}
    return [leak for leak in counted if leak.pictures] + [
        FoundLeak(stated.split, stated.task, stated.other, stated.pictures, False, stated.verified, stated.source)
        for stated in (task.card.leaks if task.source == "real" else ())
        if stated.split in {split.split for split in own} and (stated.split, stated.task, stated.other) not in compared
    ]


def _counted(
    card: TaskCard,
    split: Contents,
    contents: Mapping[str, Sequence[Contents]],
    cards: Mapping[str, TaskCard],
    digest_of: Digests,
) -> Iterator[FoundLeak]:
    """Compare a split with the other tasks' train splits and the splits that its card names; zero counts included."""
    stated = {(leak.task, leak.other) for leak in card.leaks if leak.split == split.split}
    for name, splits in contents.items():
        for other in splits if name != card.name and split.split != card.train_split else ():
            if other.split != cards[name].train_split and (name, other.split) not in stated:
                continue
            by_name = bool(set(card.siblings) & set(cards[name].siblings))
            both = shared(split, other, digest_of, by_name)
            names = (*both.pictures, *both.copies)
            if not names and not (by_name or (_is_comparable(split, digest_of) and _is_comparable(other, digest_of))):
                continue  # not compared: the statement of the card stays
            images = len({*both.pictures, *both.copied})  # an image may be in several pairs of copies
            yield FoundLeak(split.split, name, other.split, images, True, True, "measured in this data", names)


def _is_comparable(split: Contents, digest_of: Digests) -> bool:
    """Whether the split has images and a digest is known for each of them."""
    return bool(split.images) and all(path in digest_of for path in split.images.values())
