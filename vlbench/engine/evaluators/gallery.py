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
    """The encoded texts of a gallery, in order of their length, their tokens in one table without padding.

    columns [M]: the column in the gallery of each text. lengths [M]: tokens of each text up to its last real one.
    starts [M], widths [M]: the first row of each text in the table, and its rows. All are on the CPU so that nothing
    waits for the device. states [rows, D], or [rows] token ids of a backbone that only fuses; mask [rows]: the table,
    whose last row is padding. device: of `take`.
    """

    columns: Indices
    lengths: Indices
    starts: Indices
    widths: Indices
    states: Tensor
    mask: Tensor
    device: torch.device

    def take(self, positions: Indices) -> Textual:
        """The states [P, T, D] of the texts at these positions [P], which may repeat, padded to the longest of them."""
        places = np.arange(self.lengths[positions.max()])  # [T]
        is_token = places < self.widths[positions, None]  # [P, T]
        rows = np.where(is_token, self.starts[positions, None] + places, len(self.mask) - 1)
        index = torch.from_numpy(rows.reshape(-1)).to(self.states.device)
        states, mask = self.states.index_select(0, index), self.mask.index_select(0, index)
        states, mask = states.reshape(*rows.shape, *states.shape[1:]), mask.reshape(rows.shape)
        return Textual(states.to(self.device), mask.to(self.device))


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
    # As many texts as a batch holds, all of similar length, keep as many tokens as the longest of them has.
    place, size = np.arange(len(columns)), pace.batch_size
    longest = np.minimum(place - place % size + size, len(columns)) - 1
    widths = np.empty_like(lengths)
    widths[columns] = lengths[columns[longest]]
    widths = np.minimum(widths, np.concatenate([np.full(len(part.mask), part.mask.shape[1]) for part in parts]))
    stays = sum(part.states.nbytes for part in parts) <= ON_DEVICE
    states, mask = _table(parts, widths, pace.accelerator.device if stays else torch.device("cpu"))
    timing.batches.append(time.perf_counter() - started)
    starts = np.cumsum(widths) - widths
    return Texts(columns, lengths[columns], starts[columns], widths[columns], states, mask, pace.accelerator.device)


def blocks_of(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in their order, `size` in each block but the last."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def lengths_of(mask: Tensor) -> Tensor:
    """The number [M] of tokens up to the last real one of each row of a mask [M, T]; at least 1."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(dim=1).clamp(min=1)


def _table(parts: Sequence[Textual], widths: Indices, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first tokens of each text, as many as its width [M], one text after the other, then a row of padding: states
    [rows, D] and mask [rows].
    """
    first, rows = parts[0], int(widths.sum()) + 1
    states = torch.zeros(rows, *first.states.shape[2:], dtype=first.states.dtype, device=device)
    mask = torch.zeros(rows, dtype=first.mask.dtype, device=device)
    row = text = 0
    for part in parts:
        own = torch.from_numpy(widths[text : text + len(part.mask)])
        kept = (torch.arange(part.mask.shape[1]) < own[:, None]).to(part.mask.device)
        end = row + int(own.sum())
        states[row:end], mask[row:end] = part.states[kept], part.mask[kept]
        row, text = end, text + len(own)
    return states, mask


def _prepared(
    blocks: Sequence[Sequence[Item]], prepare: Callable[[Sequence[Item]], Tensors], pace: Pace
) -> Iterator[Tensors]:
    """The blocks of items, prepared (in workers where there are any) and on the device."""
    device = pace.accelerator.device
    for tensors in loader(Prepared(blocks, prepare), pace.workers, device):
        pace.check()
        yield {name: value.to(device, non_blocking=True) for name, value in tensors.items()}


def check_scores(scores: Array, rows: Indices, columns: Indices) -> None:
    """Check that all scores are numbers. rows and columns, of the same shape, say of which image and text each is.

    Raises:
        DataError: one is not, naming the first such pair.
    """
    if np.isnan(scores.min(initial=np.inf)):
        wrong = np.unravel_index(np.isnan(scores).argmax(), scores.shape)
        raise DataError(
            f"the score of image {rows[wrong]} with text {columns[wrong]} is not a number: {remedy_of_nan()}"
        )
