"""From a learner and a gallery to rankings: every picture seen once, every text read once, then every pair scored.

Shapes: N pictures, M texts, L tokens of either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from vlbench.core.backbone import Tensors, Textual, Visual
from vlbench.core.errors import DataError
from vlbench.core.examples import Example
from vlbench.core.gallery import Gallery, galleries
from vlbench.core.results import Ranking
from vlbench.engine.batches import sequential_blocks
from vlbench.engine.learner import Learner, embed
from vlbench.engine.pace import Pace, Timing
from vlbench.heads.dual import DualHead
from vlbench.metrics.ranks import from_matrix

Item = TypeVar("Item")


@dataclass(frozen=True)
class Encoded:
    """A gallery as it was seen and read, each picture and text once; it stays on the device."""

    seen: Visual
    read: Textual

    @property
    def shape(self) -> tuple[int, int]:
        """N pictures by M texts."""
        return len(self.seen.states), len(self.read.states)


def retrieve(
    learner: Learner, examples: Sequence[Example[Any]], pace: Pace, rerank_k: int | None = None
) -> tuple[list[Ranking], Timing]:
    """Rank the texts of every picture and the pictures of every text, fold by fold, in evaluation mode.

    rerank_k: only the so many best of each query by the backbone's embeddings are looked at pair by pair; they stay
    before all others, which keep the order of the embeddings. None looks at every pair.

    Raises:
        DataError: a score is not a number, naming the pair.
        VlbenchError: the backbone has no embeddings where they are needed.
        Interrupted: asked to stop.
    """
    found, timing = list[Ranking](), Timing()
    was_training = learner.training
    learner.eval()
    with torch.inference_mode(), pace.accelerator.autocast():
        for gallery in galleries(examples):
            started = time.perf_counter()
            encoded = Encoded(_see(learner, gallery, pace), _read(learner, gallery, pace))
            timing.batches.append(time.perf_counter() - started)
            timing.examples += sum(encoded.shape)
            if isinstance(learner.head, DualHead):
                found += from_matrix(_dual_scores(learner, encoded, timing), gallery)
            elif rerank_k is None:
                pairs = np.arange(math.prod(encoded.shape))
                found += from_matrix(
                    _pair_scores(learner, encoded, pairs, pace, timing).reshape(encoded.shape), gallery
                )
            else:
                found += _reranked(learner, encoded, gallery, rerank_k, pace, timing)
    learner.train(was_training)
    return found, timing


def _dual_scores(learner: Learner, encoded: Encoded, timing: Timing) -> NDArray[np.float32]:
    """The dot products of all embeddings, [N, M]."""
    started = time.perf_counter()
    images, texts = embed(learner.parts[0], encoded.seen, encoded.read)
    scores: NDArray[np.float32] = (images.float() @ texts.float().T).cpu().numpy()
    _check(scores.reshape(-1), np.arange(scores.size), encoded)
    timing.batches.append(time.perf_counter() - started)
    return scores


def _pair_scores(
    learner: Learner, encoded: Encoded, pairs: NDArray[np.int64], pace: Pace, timing: Timing
) -> NDArray[np.float32]:
    """The head's scores of those pairs, numbered row by row of [N, M]."""
    backbone, head = learner.parts
    scores = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), pace.batch_size):
        started = time.perf_counter()
        block = torch.from_numpy(pairs[start : start + pace.batch_size]).to(pace.accelerator.device)
        seen, read = encoded.seen.take(block // encoded.shape[1]), encoded.read.take(block % encoded.shape[1])
        scores[start : start + len(block)] = head(backbone.fuse(seen, read)).float().cpu().numpy()
        timing.batches.append(time.perf_counter() - started)
        pace.step(start + len(block), len(pairs))
    _check(scores, pairs, encoded)
    return scores


def _check(scores: NDArray[np.float32], pairs: NDArray[np.int64], encoded: Encoded) -> None:
    if np.isnan(scores.min(initial=np.inf)):
        row, column = divmod(int(pairs[np.isnan(scores)][0]), encoded.shape[1])
        raise DataError(
            f"the score of picture {row} with text {column} is not a number: training has diverged or the precision "
            f"is too low; try a smaller --lr or --dtype float32"
        )


def _reranked(
    learner: Learner, encoded: Encoded, gallery: Gallery, k: int, pace: Pace, timing: Timing
) -> list[Ranking]:
    """Rankings from two matrices, since a pair may be on the shortlist of its picture and not on that of its text."""
    dual = _dual_scores(learner, encoded, timing)
    of_images, of_texts = _shortlisted(dual, k), _shortlisted(dual.T, k).T
    pairs = np.flatnonzero(of_images | of_texts)
    looked_at = np.zeros(dual.shape)
    looked_at.flat[pairs] = _pair_scores(learner, encoded, pairs, pace, timing)
    first = looked_at - looked_at.min() + dual.max() + 1.0  # any pair that was looked at comes before any other
    by_image, by_text = (from_matrix(np.where(kept, first, dual), gallery) for kept in (of_images, of_texts))
    return by_image[: len(gallery.images)] + by_text[len(gallery.images) :]


def _shortlisted(scores: NDArray[np.float32], k: int) -> NDArray[np.bool_]:
    """Which of each row's candidates are among its `k` best; of equal scores at the end the first ones."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    kept = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(kept, best, True, axis=1)
    return kept


def _see(learner: Learner, gallery: Gallery, pace: Pace) -> Visual:
    """All pictures, in the first place of their query."""
    backbone, parts = learner.parts[0], []
    for images in _prepared(gallery.images, backbone.prepare_images, pace):
        first = next(iter(images.values()))
        parts.append(backbone.see(images, torch.zeros(len(first), dtype=torch.int64, device=first.device)))
    return Visual(_stacked([part.states for part in parts]), _stacked([part.mask for part in parts]))


def _read(learner: Learner, gallery: Gallery, pace: Pace) -> Textual:
    backbone = learner.parts[0]
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
