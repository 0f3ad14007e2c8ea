"""From a learner and a gallery to rankings: every picture seen once, every text read once, then every pair scored.

Shapes: N pictures, M texts, L tokens of either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from vlbench.core.backbone import Backbone, Tensors, Textual, Visual
from vlbench.core.examples import Example
from vlbench.core.gallery import Gallery, galleries
from vlbench.core.results import Ranking
from vlbench.engine.batches import sequential_blocks
from vlbench.engine.learner import Learner
from vlbench.engine.pace import Pace, Timing
from vlbench.metrics.ranks import rankings, ranks

Item = TypeVar("Item")


def retrieve(learner: Learner, examples: Sequence[Example[Any]], pace: Pace) -> tuple[list[Ranking], Timing]:
    """Rank the texts of every picture and the pictures of every text, fold by fold, in evaluation mode.

    Raises:
        DataError: a score is not a number, naming the pair.
        Interrupted: asked to stop.
    """
    found, timing = list[Ranking](), Timing()
    was_training = learner.training
    learner.eval()
    with torch.inference_mode(), pace.accelerator.autocast():
        for gallery in galleries(examples):
            scores = _scores(learner, gallery, pace, timing)
            found += rankings(scores, gallery, ranks(scores, np.asarray(gallery.owner)))
    learner.train(was_training)
    return found, timing


def _scores(learner: Learner, gallery: Gallery, pace: Pace, timing: Timing) -> NDArray[np.float32]:
    """The score of every pair, [N, M]; what was seen and read stays on the device."""
    backbone, head = learner.parts
    seen, read = _see(backbone, gallery, pace), _read(backbone, gallery, pace)
    scores = np.empty(len(gallery.images) * len(gallery.texts), np.float32)
    for start in range(0, len(scores), pace.batch_size):
        started = time.perf_counter()
        pairs = torch.arange(start, min(start + pace.batch_size, len(scores)), device=pace.accelerator.device)
        image_rows, text_rows = pairs // len(gallery.texts), pairs % len(gallery.texts)
        logits = head(backbone.fuse(seen.take(image_rows), read.take(text_rows)))
        scores[start : start + len(pairs)] = logits.float().cpu().numpy()
        timing.batches.append(time.perf_counter() - started)
        timing.examples += len(pairs)
        pace.step(start + len(pairs), len(scores))
    return scores.reshape(len(gallery.images), len(gallery.texts))


def _see(backbone: Backbone, gallery: Gallery, pace: Pace) -> Visual:
    """All pictures, in the first place of their query."""
    parts = []
    for images in _prepared(gallery.images, backbone.prepare_images, pace):
        first = next(iter(images.values()))
        parts.append(backbone.see(images, torch.zeros(len(first), dtype=torch.int64, device=first.device)))
    return Visual(_stacked([part.states for part in parts]), _stacked([part.mask for part in parts]))


def _read(backbone: Backbone, gallery: Gallery, pace: Pace) -> Textual:
    parts = [backbone.read(texts) for texts in _prepared(gallery.texts, backbone.prepare_texts, pace)]
    return Textual(_stacked([part.states for part in parts]), _stacked([part.mask for part in parts]))


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Blocks [n, L, ...] one below the other, padded to the longest L: a mask's padding is False."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, 0) * (part.dim() - 2) + (0, longest - part.shape[1])) for part in parts])


def _prepared(items: Sequence[Item], prepare: Callable[[Sequence[Item]], Tensors], pace: Pace) -> Iterator[Tensors]:
    """The items block by block, prepared (in workers where there are any) and on the device."""
    blocks = _Blocks(items, prepare, pace.batch_size)
    loader = DataLoader(blocks, None, num_workers=pace.workers, generator=torch.Generator().manual_seed(0))
    for tensors in loader:
        pace.interrupt.check()
        yield {name: value.to(pace.accelerator.device) for name, value in tensors.items()}


class _Blocks(Dataset[Tensors], Generic[Item]):
    """Items in blocks, each prepared when it is asked for."""

    def __init__(self, items: Sequence[Item], prepare: Callable[[Sequence[Item]], Tensors], size: int) -> None:
        self.items, self.prepare = items, prepare
        self.blocks = sequential_blocks(len(items), size)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Tensors:
        return self.prepare([self.items[row] for row in self.blocks[index]])
