"""From a learner and a gallery to rankings: pair by pair, by embeddings, or in two stages.

Shapes: N pictures, M texts, E embedding width.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from vlbench.core.examples import Example
from vlbench.core.gallery import Gallery, galleries
from vlbench.core.results import Ranking
from vlbench.data.cache.folder import atomic_write
from vlbench.engine.batching.block_store import Array, Shelf
from vlbench.engine.batching.prediction_shards import state_sha256
from vlbench.engine.evaluators.cross_encoder import Crossing, check_scores
from vlbench.engine.evaluators.gallery import blocks_of, read, see
from vlbench.engine.evaluators.learner import Learner, dual_encoder
from vlbench.engine.evaluators.modes import evaluation_mode
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.heads.dual import DualHead
from vlbench.metrics.ranks import from_matrix
from vlbench.metrics.retrieval import recalls
from vlbench.metrics.shortlists import in_two_stages

PRODUCTS = 1 << 24
"""Dot products computed together."""

Item = TypeVar("Item")


def retrieve(
    learner: Learner,
    examples: Sequence[Example[Any]],
    pace: Pace,
    rerank_k: int | None = None,
    keep: Path | None = None,
) -> tuple[list[Ranking], Timing]:
    """Rank the texts of every picture and the pictures of every text, fold by fold, in evaluation mode.

    Scores do not depend on how many ranks there are or how often the run was stopped; every rank gets all rankings.

    rerank_k: only the so many best of each query by the backbone's embeddings are looked at pair by pair; they stay
    before all others, which keep the order of the embeddings. None looks at every pair. keep: a folder for scores and
    embeddings; what lies there of the same learner and gallery is not made again, and of two stages `by-depth.json`
    says the recalls, in percent, that any smaller `rerank_k` would have come to. None keeps nothing.

    Raises:
        DataError: a score is not a number, naming the pair, or cannot be written.
        VlbenchError: the backbone has no embeddings where they are needed.
        Interrupted: asked to stop.
    """
    timing, curve = Timing(), dict[int, list[Ranking]]()
    with evaluation_mode(learner), torch.inference_mode(), pace.accelerator.autocast():
        for number, gallery in enumerate(galleries(examples)):
            folder = keep / f"fold-{number}" if keep else None
            search = Search(learner, gallery, _shelf(learner, gallery, pace, rerank_k, folder), pace, timing)
            for depth, rankings in search.rankings(rerank_k).items():
                curve.setdefault(depth, []).extend(rankings)
    if rerank_k is not None and keep and pace.ranks.is_main:
        by_depth = {depth: recalls(rankings, examples) for depth, rankings in curve.items()}
        atomic_write(keep / "by-depth.json", json.dumps(by_depth, indent=1) + "\n")
    return curve[max(curve)], timing


@dataclass(frozen=True)
class Search:
    """One gallery as a learner searches it."""

    learner: Learner
    gallery: Gallery
    shelf: Shelf
    pace: Pace
    timing: Timing

    def rankings(self, rerank_k: int | None) -> dict[int, list[Ranking]]:
        """The rankings by how many candidates of each query were looked at; 0 where there is one stage only."""
        crossing = Crossing(self.learner, self.gallery, self.shelf, self.pace, self.timing)
        if isinstance(self.learner.head, DualHead):
            return {0: from_matrix(self.quick(), self.gallery)}
        if rerank_k is None:
            return {0: from_matrix(crossing.all_pairs(), self.gallery)}
        return in_two_stages(self.quick(), self.gallery, rerank_k, crossing.some_pairs)

    def quick(self) -> Array:
        """The dot products [N, M] of all embeddings, in float32."""
        images, texts = self._images(), self._texts()
        blocks = blocks_of(range(len(images)), max(1, PRODUCTS // len(texts)))

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            others = self._on_device(texts).T
            for number in numbers:
                rows = np.asarray(blocks[number])
                with torch.autocast(others.device.type, enabled=False):
                    scores: Array = (self._on_device(images[rows]) @ others).cpu().numpy()
                check_scores(scores.reshape(-1), np.repeat(rows, len(texts)), np.tile(np.arange(len(texts)), len(rows)))
                yield scores

        return self.shelf.fill("quick", [len(block) for block in blocks], make)

    def _images(self) -> Array:
        """Embeddings [N, E] of all pictures."""
        backbone = self.learner.parts[0]
        encoder = dual_encoder(backbone)
        return self._embedded(
            "images", self.gallery.images, lambda blocks: map(encoder.embed_images, see(backbone, blocks, self.pace))
        )

    def _texts(self) -> Array:
        """Embeddings [M, E] of all texts."""
        backbone = self.learner.parts[0]
        encoder = dual_encoder(backbone)
        return self._embedded(
            "texts", self.gallery.texts, lambda blocks: map(encoder.embed_texts, read(backbone, blocks, self.pace))
        )

    def _embedded(
        self, name: str, items: Sequence[Item], embed: Callable[[Sequence[Sequence[Item]]], Iterator[Tensor]]
    ) -> Array:
        blocks = blocks_of(items, self.pace.batch_size)

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            started = time.perf_counter()
            for vectors in embed([blocks[number] for number in numbers]):
                yield vectors.float().cpu().numpy()
                now = time.perf_counter()
                self.timing.batches.append(now - started)
                self.timing.examples += len(vectors)
                started = now

        return self.shelf.fill(name, [len(block) for block in blocks], make)

    def _on_device(self, vectors: Array) -> Tensor:
        return torch.from_numpy(np.array(vectors)).to(self.pace.accelerator.device)


def _shelf(learner: Learner, gallery: Gallery, pace: Pace, rerank_k: int | None, folder: Path | None) -> Shelf:
    return Shelf(pace.ranks, folder, _key(learner, gallery, pace, rerank_k) if folder else "")


def _key(learner: Learner, gallery: Gallery, pace: Pace, rerank_k: int | None) -> str:
    """All that scores depend on, as a hash: weights, gallery, and how pairs are cut into batches and computed."""
    accelerator, gallery_is = pace.accelerator, [[ref.key for ref in gallery.images], gallery.text_ids, gallery.texts]
    computed = [pace.batch_size, rerank_k, accelerator.device.type, accelerator.mixed_precision]
    meaning = [type(learner.head).__name__, state_sha256(learner), gallery_is, computed]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()
