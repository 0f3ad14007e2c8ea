"""The two sides of a gallery: images, encoded block by block as needed, and texts, encoded once, shortest first.

Shapes: M texts, P pairs, T tokens, D width.
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
Places = NDArray[np.int64]

ON_DEVICE = 4 << 30
"""Bytes of texts that stay on the device; more than that stay in the host's memory and are copied batch by batch."""


@dataclass(frozen=True)
class Texts:
    """A gallery's texts as they were read, in order of their length.

    columns [M]: which text of the gallery stands at each place. lengths [M]: tokens of the text at each place, on the
    CPU so that nobody waits for the device. chunks: `size` texts each, the last one what is left.
    """

    columns: Places
    lengths: Places
    chunks: tuple[Textual, ...]
    size: int
    device: torch.device

    def take(self, places: Places) -> Textual:
        """The texts [P] at these places, some perhaps more than once, padded to the longest of them."""
        wanted, copies = np.unique(places, return_inverse=True)
        parts = []
        for number in np.unique(wanted // self.size):
            chunk = self.chunks[number]
            rows = torch.from_numpy(wanted[wanted // self.size == number] % self.size)
            parts.append(chunk.take(rows.to(chunk.mask.device)))
        longest = int(self.lengths[wanted[-1]])
        return _together(parts, longest, self.device).take(torch.from_numpy(copies.reshape(-1)).to(self.device))


def see(backbone: Backbone, blocks: Sequence[Sequence[ImageRef]], pace: Pace) -> Iterator[Visual]:
    """Each block of pictures, in the first place of their query."""
    for images in _prepared(blocks, backbone.prepare_images, pace):
        first = next(iter(images.values()))
        yield backbone.see(images, torch.zeros(len(first), dtype=torch.int64, device=first.device))


def read(backbone: Backbone, blocks: Sequence[Sequence[str]], pace: Pace) -> Iterator[Textual]:
    """Each block of texts."""
    return map(backbone.read, _prepared(blocks, backbone.prepare_texts, pace))


def read_all(backbone: Backbone, texts: Sequence[str], pace: Pace, timing: Timing) -> Texts:
    """Read every text once and put them in order of their length, ties in the order of the gallery."""
    started = time.perf_counter()
    parts = list(read(backbone, blocks_of(texts, pace.batch_size), pace))
    lengths = np.concatenate([lengths_of(part.mask).cpu().numpy() for part in parts])
    columns = np.argsort(lengths, kind="stable")
    stays = sum(part.states.nbytes for part in parts) <= ON_DEVICE
    kept = pace.accelerator.device if stays else torch.device("cpu")
    of_gallery = [Textual(part.states[[row]], part.mask[[row]]) for part in parts for row in range(len(part.mask))]
    chunks = tuple(
        _together([of_gallery[column] for column in block], int(lengths[block[-1]]), kept)
        for block in blocks_of(columns.tolist(), pace.batch_size)
    )
    timing.batches.append(time.perf_counter() - started)
    return Texts(columns, lengths[columns], chunks, pace.batch_size, pace.accelerator.device)


def blocks_of(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in their order, so many in each block but for the last."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def lengths_of(mask: Tensor) -> Tensor:
    """The place [M] behind the last real token of each row of a mask [M, T]; at least 1."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(dim=1).clamp(min=1)


def _together(parts: Sequence[Textual], longest: int, device: torch.device) -> Textual:
    """Texts one below the other on the device, cut or padded to the length of the longest."""
    states, masks = (
        torch.cat([_as_long(tensor, longest).to(device) for tensor in tensors])
        for tensors in ([part.states for part in parts], [part.mask for part in parts])
    )
    return Textual(states, masks)


def _as_long(tensor: Tensor, longest: int) -> Tensor:
    """A tensor [M, T, ...] with T made `longest`; a mask's padding is False."""
    missing = longest - tensor.shape[1]
    if missing <= 0:
        return tensor[:, :longest]
    return functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, missing))


def _prepared(
    blocks: Sequence[Sequence[Item]], prepare: Callable[[Sequence[Item]], Tensors], pace: Pace
) -> Iterator[Tensors]:
    """The blocks of items, prepared (in workers where there are any) and on the device."""
    device = pace.accelerator.device
    for tensors in loader(Prepared(blocks, prepare), pace.workers, device):
        pace.check()
        yield {name: value.to(device, non_blocking=True) for name, value in tensors.items()}


def check_scores(scores: Array, rows: Places, columns: Places) -> None:
    """Check that all scores [P] are numbers.

    Raises:
        DataError: one is not, naming the first such pair.
    """
    if np.isnan(scores.min(initial=np.inf)):
        wrong = int(np.isnan(scores).argmax())
        raise DataError(
            f"the score of image {rows[wrong]} with text {columns[wrong]} is not a number: {remedy_of_nan()}"
        )
