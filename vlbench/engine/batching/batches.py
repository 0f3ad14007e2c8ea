"""How examples are cut into batches, and how batches are loaded."""

from __future__ import annotations

import pickle
import random
import traceback
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from vlbench.core.backbone import Model
from vlbench.core.batch import Batch, Draw
from vlbench.core.columns import columns_of, queries_of
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Examples
from vlbench.core.user_code import user_faults
from vlbench.engine.batching.isolation import name_example
from vlbench.heads.base import Head

Item = TypeVar("Item")
Ready = TypeVar("Ready")
"""The input of a forward pass."""


class Batches(Dataset[Batch]):
    """The batches of blocks of example rows, collated on access (in a worker where there are any).

    draws: of training, one per block, which give the batches targets; None for inference.
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
        rows, draw = self.blocks[index], None if self.draws is None else self.draws[index]
        try:
            return self.head.collate(self.examples, rows, self.model, draw)
        except Exception as error:
            name_example(error, rows, self.examples, lambda some: self.head.collate(self.examples, some, self.model))
            raise


class Prepared(Dataset[Ready], Generic[Item, Ready]):
    """Blocks of items, prepared on access (in a worker where there are any)."""

    def __init__(self, blocks: Sequence[Sequence[Item]], prepare: Callable[[Sequence[Item]], Ready]) -> None:
        self.blocks, self.prepare = blocks, prepare

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Ready:
        return self.prepare(self.blocks[index])


def related_rows(examples: Examples, max_rows: int) -> list[list[int]]:
    """Rows of examples of one group or with a shared image, transitively, in parts of at most `max_rows`."""
    leaders: dict[str, str] = {}

    def leader(name: str) -> str:
        while leaders.setdefault(name, name) != name:
            leaders[name] = name = leaders[leaders[name]]
        return name

    groups = columns_of(examples).groups
    for group, query in zip(groups, queries_of(examples), strict=True):
        for ref in query.images:
            leaders[leader(f"image {ref.key}")] = leader(f"group {group}")
    together: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        together.setdefault(leader(f"group {group}"), []).append(row)
    return [rows[start : start + max_rows] for rows in together.values() for start in range(0, len(rows), max_rows)]


def training_blocks(
    units: Sequence[Sequence[int]], batch_size: int, steps: int, seed: int, images: Sequence[str] | None = None
) -> list[list[int]]:
    """The rows of every optimizer step, by `epoch_blocks` of one epoch after the other.

    Raises:
        VlbenchError: all texts of a step that contrasts images belong to one image.
    """
    blocks: list[list[int]] = []
    epoch = 0
    while len(blocks) < steps:
        blocks += epoch_blocks(units, batch_size, seed, epoch, images)
        epoch += 1
    for number, block in enumerate(blocks[:steps] if images else (), start=1):
        if images and len({images[row] for row in block}) == 1:
            raise VlbenchError(
                f"step {number} of training holds one image alone ({images[block[0]]!r}, texts: {len(block)}), and a "
                f"contrastive loss needs others as negatives: give a larger --batch-size than {batch_size}, more "
                f"images, or --set train.batches=shuffled"
            )
    return blocks[:steps]


def epoch_blocks(
    units: Sequence[Sequence[int]], batch_size: int, seed: int, epoch: int, images: Sequence[str] | None = None
) -> list[list[int]]:
    """The rows of an epoch's optimizer steps: a seeded permutation of the units, which omits no row.

    units: rows that stay in one block, none longer than `batch_size`. A block takes units while they fit, so some
    blocks are shorter. images: of each row, where the other images of a step are negatives: a last block with a single
    image is merged into the block before it. None where a step needs no negatives.
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
    """Each block cut into `parts` of nearly equal size, one per forward pass; a smaller block into single rows."""
    return [list(block[part::parts]) for block in blocks for part in range(min(parts, len(block)))]


def sequential_blocks(n: int, batch_size: int) -> list[list[int]]:
    """All rows from 0 to n - 1 in their order."""
    return [list(range(start, min(start + batch_size, n))) for start in range(0, n, batch_size)]


def answering_blocks(examples: Examples, batch_size: int) -> list[list[int]]:
    """Rows to answer together: examples with the same first image follow each other, in the order of the images.

    So an image is decoded and encoded about once, also where its examples are spread over the file, as in SNLI-VE.
    """
    rows_of: dict[str, list[int]] = {}
    for row, query in enumerate(queries_of(examples)):
        rows_of.setdefault(query.images[0].key if query.images else "", []).append(row)
    rows = [row for of_image in rows_of.values() for row in of_image]
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]


def loader(batches: Dataset[Ready], workers: int, device: torch.device) -> Iterator[Ready]:
    """The batches in order; nothing is drawn from torch's global generator.

    Raises:
        VlbenchError: exit 130, since the run can be resumed: a worker was killed.
    """
    pin, generator = device.type == "cuda", torch.Generator().manual_seed(0)
    guarded = _Guarded(batches) if workers else batches
    loaded = iter(DataLoader(guarded, batch_size=None, num_workers=workers, pin_memory=pin, generator=generator))
    return _raise_errors_of_workers(loaded)


def fetch_later(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Begin to copy a tensor to the CPU; what is returned waits for the copy."""
    if values.device.type != "cuda":
        return values.cpu
    copy = values.to("cpu", non_blocking=True)
    copied = torch.cuda.current_stream(values.device).record_event()

    def wait() -> torch.Tensor:
        copied.synchronize()
        return copy

    return wait


@dataclass(frozen=True)
class _Failure:
    """An error in a worker."""

    error: BaseException


class _Guarded(Dataset[Ready | _Failure], Generic[Ready]):
    """Batches, or the errors that prevent them: raised in a worker, an error loses its message and its exit code."""

    def __init__(self, batches: Dataset[Ready]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(cast(Sized, self.batches))

    def __getitem__(self, index: int) -> Ready | _Failure:
        try:
            with user_faults():
                return self.batches[index]
        except Exception as error:
            error.add_note(traceback.format_exc())
            return _Failure(error if _is_picklable(error) else RuntimeError(f"{type(error).__name__}: {error}"))


def _is_picklable(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the methods of a foreign exception raise
        return False
    return True


def _raise_errors_of_workers(batches: Iterator[Ready | _Failure]) -> Iterator[Ready]:
    try:
        for batch in batches:
            if isinstance(batch, _Failure):
                raise batch.error
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise VlbenchError(
            "a process that prepares batches was killed, perhaps for want of memory: free some, or use fewer --workers",
            ExitCode.INTERRUPTED,
        ) from None
