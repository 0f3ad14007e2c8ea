"""How examples are cut into batches, and how batches are loaded."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from vlbench.core.backbone import Model
from vlbench.core.batch import Batch, Draw
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Examples
from vlbench.heads.base import Head

Item = TypeVar("Item")
Ready = TypeVar("Ready")
"""The input of a forward pass."""


class Batches(Dataset[Batch]):
    """Blocks of example indices, each collated when asked for (in a worker where there are any).

    model, head: what the batches are for. draws: of training, one per block, which give the batches targets; None
    predicts.
    """

    def __init__(
        self,
        examples: Examples,
        blocks: Sequence[Sequence[int]],
        model: Model,
        head: Head,
        draws: Sequence[Draw] | None = None,
    ) -> None:
        self.examples, self.blocks = examples, blocks
        self.model, self.head, self.draws = model, head, draws

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Batch:
        draw = None if self.draws is None else self.draws[index]
        return self.head.collate(self.examples, self.blocks[index], self.model, draw)


class Prepared(Dataset[Ready], Generic[Item, Ready]):
    """Blocks of items, each prepared when asked for (in a worker where there are any)."""

    def __init__(self, blocks: Sequence[Sequence[Item]], prepare: Callable[[Sequence[Item]], Ready]) -> None:
        self.blocks, self.prepare = blocks, prepare

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Ready:
        return self.prepare(self.blocks[index])


def related(examples: Examples, most: int) -> list[list[int]]:
    """Rows that belong together: examples of one group, or with a picture in common, and so on from one to the next.

    most: what is larger is cut into parts of at most so many rows.
    """
    leaders: dict[str, str] = {}

    def leader(name: str) -> str:
        while leaders.setdefault(name, name) != name:
            leaders[name] = name = leaders[leaders[name]]
        return name

    for example in examples:
        for ref in example.query.images:
            leaders[leader(f"picture {ref.key}")] = leader(f"group {example.group}")
    together: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        together.setdefault(leader(f"group {example.group}"), []).append(row)
    return [rows[start : start + most] for rows in together.values() for start in range(0, len(rows), most)]


def training_blocks(
    units: Sequence[Sequence[int]], batch_size: int, steps: int, seed: int, images: Sequence[str] | None = None
) -> list[list[int]]:
    """The rows of every optimizer step: epoch after epoch, as `epoch_blocks` has them, cut once.

    Raises:
        VlbenchError: a step that should contrast images holds a single one.
    """
    blocks: list[list[int]] = []
    epoch = 0
    while len(blocks) < steps:
        blocks += epoch_blocks(units, batch_size, seed, epoch, images)
        epoch += 1
    if images is not None:
        check_negatives(blocks[:steps], images, batch_size)
    return blocks[:steps]


def check_negatives(blocks: Sequence[Sequence[int]], images: Sequence[str], batch_size: int) -> None:
    """Raises VlbenchError where a step has no negatives: all of its texts belong to one image."""
    for number, block in enumerate(blocks, start=1):
        if len({images[row] for row in block}) == 1:
            raise VlbenchError(
                f"step {number} of training holds one image alone ({images[block[0]]!r}, texts: {len(block)}), and a "
                f"contrastive loss needs others as negatives: give a larger --batch-size than {batch_size}, more "
                f"images, or --set train.batches=shuffled"
            )


def epoch_blocks(
    units: Sequence[Sequence[int]], batch_size: int, seed: int, epoch: int, images: Sequence[str] | None = None
) -> list[list[int]]:
    """The rows of an epoch's optimizer steps: a seeded permutation of the units, no row left out.

    units: rows that stay in one block, none longer than `batch_size`. A block takes units while they fit, so
    some blocks, and the last one, are shorter. images: of each row, where the other images of a step are the negatives
    of its loss: a last block with a single image joins the block before it. None where a step needs no negatives.
    """
    order = list(units)
    random.Random(f"{seed}/epoch {epoch}").shuffle(order)
    blocks, block = list[list[int]](), list[int]()
    for unit in order:
        if len(block) + len(unit) > batch_size:
            blocks.append(block)
            block = []
        block += unit
    if blocks and images is not None and len({images[row] for row in block}) == 1:
        return [*blocks[:-1], blocks[-1] + block]
    return [*blocks, block]


def micro_blocks(blocks: Sequence[Sequence[int]], parts: int) -> list[list[int]]:
    """Each block cut into `parts` of near equal size, one forward pass each; a smaller block into single rows."""
    return [list(block[part::parts]) for block in blocks for part in range(min(parts, len(block)))]


def sequential_blocks(n: int, batch_size: int) -> list[list[int]]:
    """All rows in their order."""
    return [list(range(start, min(start + batch_size, n))) for start in range(0, n, batch_size)]


def answering_blocks(examples: Examples, batch_size: int) -> list[list[int]]:
    """Rows to answer together: examples of one (first) picture follow each other, pictures as they first come.

    So a picture is decoded and seen about once, also where its examples are spread over the file, as in SNLI-VE.
    """
    numbers: dict[str, int] = {}

    def number(row: int) -> int:
        pictures = examples[row].query.images
        return numbers.setdefault(pictures[0].key if pictures else "", len(numbers))

    rows = sorted(range(len(examples)), key=number)
    return [[rows[place] for place in block] for block in sequential_blocks(len(rows), batch_size)]


def loader(batches: Dataset[Ready], workers: int, device: torch.device) -> Iterator[Ready]:
    """The batches in order. Its random state is its own: building it draws nothing from torch's."""
    ready = DataLoader(
        batches,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
        persistent_workers=False,
    )
    return _watched(iter(ready))


def _watched(batches: Iterator[Ready]) -> Iterator[Ready]:
    """The same; a worker that was killed is a VlbenchError (exit 130), since what is saved can be gone on from."""
    try:
        yield from batches
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise VlbenchError(
            "a process that prepares batches was killed, perhaps for want of memory: free some, or use fewer --workers",
            ExitCode.INTERRUPTED,
        ) from None
