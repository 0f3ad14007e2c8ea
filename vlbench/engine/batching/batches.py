"""Batches: cut once, every picture and every text of a batch prepared once however often it is asked about.

Shapes: B examples, Q queries for each (one, but for negatives in training), I pictures per query, P = B * Q * I pairs,
N distinct (picture, slot), M distinct texts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlbench.core.backbone import Augmenting, Backbone, MultiScale, Tensors
from vlbench.core.cards import ScaleRange
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.core.head import Head

Ready = TypeVar("Ready")
"""What a forward takes."""


@dataclass(frozen=True)
class Batch:
    """One forward's input.

    images, texts: prepared tensors of the N pictures and M texts. slots [N]: each picture's place in its
    query. image_rows, text_rows [P]: which picture and text each pair joins, example by example.
    targets: as the head makes them, None outside training. ids: of the B examples.
    """

    ids: tuple[str, ...]
    images: Tensors
    slots: Tensor
    texts: Tensors
    image_rows: Tensor
    text_rows: Tensor
    targets: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        return Batch(
            self.ids,
            {name: value.to(device, non_blocking=True) for name, value in self.images.items()},
            self.slots.to(device),
            {name: value.to(device, non_blocking=True) for name, value in self.texts.items()},
            self.image_rows.to(device),
            self.text_rows.to(device),
            None if self.targets is None else self.targets.to(device),
        )

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory; the data loader calls it when there is a GPU."""
        return Batch(
            self.ids,
            {name: value.pin_memory() for name, value in self.images.items()},
            self.slots,
            {name: value.pin_memory() for name, value in self.texts.items()},
            self.image_rows,
            self.text_rows,
            self.targets,
        )


class Batches(Dataset[Batch]):
    """Blocks of example indices, each turned into a Batch when asked for (in a worker where there are any).

    head: the one that is trained; None to predict, without targets. chance: names the stream that negatives and changes
    of pictures are drawn from. first: the number of the first block in that stream, so that training goes on where it
    stopped. augment: whether images are augmented. scales: random sizes that they are resized to; None keeps the
    backbone's own.

    Raises:
        VlbenchError: images shall be augmented or resized at random and the backbone cannot do that.
    """

    def __init__(
        self,
        examples: Sequence[Example[Any]],
        blocks: Sequence[Sequence[int]],
        backbone: Backbone,
        head: Head | None = None,
        chance: str = "",
        first: int = 0,
        augment: bool = False,
        scales: ScaleRange | None = None,
    ) -> None:
        check_changes(backbone, augment, scales)
        self.examples = examples
        self.blocks = blocks
        self.backbone = backbone
        self.head = head
        self.chance, self.first = chance, first
        self.augment, self.scales = augment, scales

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Batch:
        block = [self.examples[row] for row in self.blocks[index]]
        pictures: dict[tuple[str, int], int] = {}
        texts: dict[str, int] = {}
        refs, image_rows, text_rows = [], [], []
        for query in self._queries(index):
            text_row = texts.setdefault(query.text, len(texts))
            for slot, ref in enumerate(query.images):
                if (ref.key, slot) not in pictures:
                    pictures[ref.key, slot] = len(pictures)
                    refs.append(ref)
                image_rows.append(pictures[ref.key, slot])
                text_rows.append(text_row)
        return Batch(
            ids=tuple(example.id for example in block),
            images=self._images(refs, index),
            slots=torch.tensor([slot for _, slot in pictures]),
            texts=self.backbone.prepare_texts(list(texts)),
            image_rows=torch.tensor(image_rows),
            text_rows=torch.tensor(text_rows),
            targets=self.head.targets(block) if self.head is not None else None,
        )

    def _images(self, refs: Sequence[ImageRef], index: int) -> Tensors:
        if self.augment and isinstance(self.backbone, Augmenting):
            return self.backbone.augmented(refs, Random(f"{self.chance}/pictures/{self._number(index)}"))
        if self.scales is not None and isinstance(self.backbone, MultiScale):
            rng = Random(f"{self.chance}/pictures/{self._number(index)}")
            return self.backbone.rescaled(refs, rng, self.scales)
        return self.backbone.prepare_images(refs)

    def _queries(self, index: int) -> list[Query]:
        if self.head is None:
            return [self.examples[row].query for row in self.blocks[index]]
        return self.head.queries(self.blocks[index], self.examples, Random(f"{self.chance}/{self._number(index)}"))

    def _number(self, index: int) -> int:
        """The block's number in the stream of chance."""
        return self.first + index


def check_changes(backbone: object, augment: bool, scales: ScaleRange | None) -> None:
    """Whether the backbone can do with training images what a recipe asks for.

    Raises:
        VlbenchError: it cannot change them, or not resize them at random, or both are asked for at once.
    """
    name = type(backbone).__name__
    if augment and not isinstance(backbone, Augmenting):
        raise VlbenchError(
            f"train.augment is for models that can change the pixels they look at, and {name} cannot: set it to none"
        )
    if scales is not None and not isinstance(backbone, MultiScale):
        raise VlbenchError(
            f"train.short_side {[*scales[:2]]} is for models that take images of any size (soho), and {name} does not: "
            f"leave it out"
        )
    if augment and scales is not None:
        raise VlbenchError("train.augment and train.short_side do not go together: leave one of them out")


def related(examples: Sequence[Example[Any]], most: int) -> list[list[int]]:
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


def answering_blocks(examples: Sequence[Example[Any]], batch_size: int) -> list[list[int]]:
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
