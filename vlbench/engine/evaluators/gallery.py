"""The two sides of a gallery: images, encoded block by block as needed, and texts, encoded once, shortest first.

Shapes: N images of a block, M texts, P pairs, R visual tokens, T text tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vlbench.core.backbone import Backbone, Tensors, Textual, Visual
from vlbench.core.errors import DataError, remedy_of_nan
from vlbench.core.examples import ImageRef
from vlbench.engine.batching.batches import Prepared, loader
from vlbench.engine.batching.block_store import Array
from vlbench.engine.runtime.progress_timing import Pace, Timing

Item = TypeVar("Item")
Indices = NDArray[np.int64]

ON_DEVICE = 4 << 30
"""The most bytes of texts that stay on the device; more stay in host memory and are copied batch by batch."""


@dataclass(frozen=True)
class Texts:
    """The encoded texts of a gallery, in order of their length.

    columns [M]: the column in the gallery of each text. lengths [M]: tokens of each text, on the CPU so that nothing
    waits for the device. chunks: states [size, T, D] of `size` texts each, fewer in the last one. device: of `take`.
    """

    columns: Indices
    lengths: Indices
    chunks: tuple[Textual, ...]
    size: int
    device: torch.device

    def take(self, positions: Indices) -> Textual:
        """The states [P, T, D] of the texts at these positions [P], which may repeat, padded to the longest of them."""
        wanted, copies = np.unique(positions, return_inverse=True)
        parts = []
        for number in np.unique(wanted // self.size):
            chunk = self.chunks[number]
            rows = torch.from_numpy(wanted[wanted // self.size == number] % self.size)
            parts.append(chunk.take(rows.to(chunk.mask.device)))
        longest = int(self.lengths[wanted[-1]])
        return _concatenate(parts, longest, self.device).take(torch.from_numpy(copies.reshape(-1)).to(self.device))


def encode_images(backbone: Backbone, blocks: Sequence[Sequence[ImageRef]], pace: Pace) -> Iterator[Visual]:
    """The states [N, R, D] of each block of images, which are the first image of their query."""
    for images in _prepared(blocks, backbone.prepare_images, pace):
        first = next(iter(images.values()))
        yield backbone.see(images, torch.zeros(len(first), dtype=torch.int64, device=first.device))


def encode_texts(backbone: Backbone, blocks: Sequence[Sequence[str]], pace: Pace) -> Iterator[Textual]:
    """The states [M, T, D] of each block of texts."""
    return map(backbone.read, _prepared(blocks, backbone.prepare_texts, pace))


def encode_all_texts(backbone: Backbone, texts: Sequence[str], pace: Pace, timing: Timing) -> Texts:
    """Encode every text once and sort them by length, ties in the order of the gallery."""
    started = time.perf_counter()
    parts = list(encode_texts(backbone, blocks_of(texts, pace.batch_size), pace))
    lengths = np.concatenate([lengths_of(part.mask).cpu().numpy() for part in parts])
    columns = np.argsort(lengths, kind="stable")
    stays = sum(part.states.nbytes for part in parts) <= ON_DEVICE
    memory = pace.accelerator.device if stays else torch.device("cpu")
    in_order = [Textual(part.states[[row]], part.mask[[row]]) for part in parts for row in range(len(part.mask))]
    chunks = tuple(
        _concatenate([in_order[column] for column in block], int(lengths[block[-1]]), memory)
        for block in blocks_of(columns.tolist(), pace.batch_size)
    )
    timing.batches.append(time.perf_counter() - started)
    return Texts(columns, lengths[columns], chunks, pace.batch_size, pace.accelerator.device)


def blocks_of(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in their order, `size` in each block but the last."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def lengths_of(mask: Tensor) -> Tensor:
    """The number [M] of tokens up to the last real one of each row of a mask [M, T]; at least 1."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(dim=1).clamp(min=1)


def _concatenate(parts: Sequence[Textual], longest: int, device: torch.device) -> Textual:
    """All texts on the device, cut or padded to a length of `longest`; padding is False in the mask."""
    states = [functional.pad(part.states, (0, 0, 0, longest - part.states.shape[1])) for part in parts]
    masks = [functional.pad(part.mask, (0, longest - part.mask.shape[1])) for part in parts]
    return Textual(torch.cat([part.to(device) for part in states]), torch.cat([part.to(device) for part in masks]))


def _prepared(
    blocks: Sequence[Sequence[Item]], prepare: Callable[[Sequence[Item]], Tensors], pace: Pace
) -> Iterator[Tensors]:
    """The blocks of items, prepared (in workers where there are any) and on the device."""
    device = pace.accelerator.device
    for tensors in loader(Prepared(blocks, prepare), pace.workers, device):
        pace.check()
        yield {name: value.to(device, non_blocking=True) for name, value in tensors.items()}


def check_scores(scores: Array, rows: Indices, columns: Indices) -> None:
    """Check that all scores [P] are numbers.

    Raises:
        DataError: one is not, naming the first such pair.
    """
    if np.isnan(scores.min(initial=np.inf)):
        wrong = int(np.isnan(scores).argmax())
        raise DataError(
            f"the score of image {rows[wrong]} with text {columns[wrong]} is not a number: {remedy_of_nan()}"
        )
