"""A gallery ranked by a cross-encoder: its pairs are scored block by block of images.

Shapes: N images, M texts, P pairs, R visual tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlbench.core.backbone import Model, Visual
from vlbench.core.examples import Examples, captioned
from vlbench.core.gallery import galleries
from vlbench.core.modes import MODES
from vlbench.core.results import Ranking
from vlbench.engine.batching.block_store import Array
from vlbench.engine.evaluators.gallery import (
    Indices,
    Texts,
    check_scores,
    encode_all_texts,
    encode_images,
    lengths_of,
)
from vlbench.engine.evaluators.retrieval import Retrieval, Search
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.heads.base import Head
from vlbench.heads.build import build_head
from vlbench.heads.forward import Forward, encode_pairs
from vlbench.heads.rank import RankHead
from vlbench.metrics.ranks import from_matrix
from vlbench.metrics.shortlists import in_two_stages

IMAGES, PAIRS = 16, 1 << 16
"""The most images of a block and, where it has several, the most pairs; a killed run loses that much."""


class CrossEncoder(Retrieval):
    """Ranks a gallery pair by pair, or the best by embeddings pair by pair."""

    def build_head(self, model: Model) -> Head:
        """One score per pair."""
        job = self.job
        return build_head(job.task.card, job.card, model.width, (), job.spec.train)

    @property
    def loads_head(self) -> bool:
        """Also true zero-shot, by the ITM head of pretraining."""
        facts = MODES[self.job.spec.mode]
        return facts.loads_head or facts.untrained

    def rank(self, search: Search) -> dict[int, list[Ranking]]:
        """As `by_pairs`."""
        return by_pairs(search, self.job.spec.rerank_k)

    def work(self, examples: Examples) -> tuple[int, str]:
        """The pairs that are scored."""
        k, pairs = self.job.spec.rerank_k, 0
        for gallery in galleries(captioned(examples)):
            images, texts = len(gallery.images), len(gallery.texts)
            shortlists = images * texts if k is None else images * min(k, texts) + texts * min(k, images)
            pairs += min(images * texts, shortlists)
        return pairs, "pairs"

    def max_batch(self, examples: Examples) -> int:
        """The most pairs of a batch."""
        return self.job.spec.eval_batch_size

    def run_batch(self, learner: Learner, examples: Examples, size: int, pace: Pace) -> None:
        """Score `size` pairs of a few images and texts."""
        few, device = examples[:8], pace.accelerator.device
        batch = learner.head.collate(few, range(len(few)), learner.model).to(device)
        with torch.inference_mode(), pace.accelerator.autocast():
            visual, textual = encode_pairs(learner.model, batch)
            rows = torch.arange(size, device=device) % len(visual.mask)
            _rank_head(learner).score_pairs(
                Forward(learner.model, batch).backbone, visual.take(rows), textual.take(rows)
            )


def by_pairs(search: Search, rerank_k: int | None = None) -> dict[int, list[Ranking]]:
    """Rankings by the scores of all pairs; with `rerank_k` of the best pairs by embeddings, for each smaller k too."""
    scoring = PairScoring(search)
    if rerank_k is None:
        return {0: from_matrix(scoring.score_all(), search.gallery)}
    return in_two_stages(search.dot_products(), search.gallery, rerank_k, scoring.score_some)


@dataclass(frozen=True)
class PairScoring:
    """The scoring of a gallery's pairs; batches are cut by gallery and batch size, whatever the number of ranks."""

    search: Search

    @property
    def blocks(self) -> list[range]:
        """The rows of each block of images."""
        size = max(1, min(IMAGES, PAIRS // len(self.search.gallery.texts), self.search.pace.batch_size))
        rows = range(len(self.search.gallery.images))
        return [rows[start : start + size] for start in rows[::size]]

    def score_all(self) -> Array:
        """The scores [N, M] of every image with every text.

        Raises:
            DataError: a score is not a number, naming the pair; or as `BlockStore.fill`.
            Interrupted: asked to stop.
        """
        blocks, texts = self.blocks, len(self.search.gallery.texts)

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            chosen = [blocks[number] for number in numbers]
            # Every rank encodes all texts; one counts them.
            self.search.timing.examples += sum(map(len, chosen)) + (texts if self.search.pace.ranks.is_main else 0)
            pairs = ((np.repeat(block, texts), np.tile(np.arange(texts), len(block))) for block in chosen)
            total = sum(map(len, chosen)) * texts
            return (scores.reshape(-1, texts) for scores in self._score_blocks(chosen, pairs, total))

        return self.search.store.fill("scores", [len(block) for block in blocks], make)

    def score_some(self, rows: Indices, columns: Indices) -> Array:
        """The scores [P] of these pairs, whose rows [P] ascend; raises as `score_all` does."""
        blocks = self.blocks
        edges = np.searchsorted(rows, [block.start for block in blocks] + [len(self.search.gallery.images)])

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            parts = [slice(edges[number], edges[number + 1]) for number in numbers]
            pairs = [(rows[part], columns[part]) for part in parts]
            total = sum(len(part) for part, _ in pairs)
            return self._score_blocks([blocks[number] for number in numbers], pairs, total)

        return self.search.store.fill("looked-at", np.diff(edges).tolist(), make)

    def _score_blocks(
        self, blocks: Sequence[range], pairs: Iterable[tuple[Indices, Indices]], total: int
    ) -> Iterator[Array]:
        """The scores of each block's pairs, given as their rows and columns in the gallery; `total` pairs in all."""
        backbone, images = self.search.backbone, self.search.gallery.images
        texts = encode_all_texts(backbone, self.search.gallery.texts, self.search.pace, self.search.timing)
        positions = np.argsort(texts.columns)  # of the gallery's columns among the sorted texts
        done = 0
        encoded = encode_images(backbone, [images[block.start : block.stop] for block in blocks], self.search.pace)
        for block, (rows, columns), visual in zip(blocks, pairs, encoded, strict=True):
            order = np.lexsort((positions[columns], rows))  # image by image and texts by length, for little padding
            scores = np.empty(len(rows), np.float32)
            for part, values in self._score_batches(
                visual, texts, rows[order] - block.start, positions[columns][order]
            ):
                scores[order[part]] = values
                done += len(values)
                self.search.pace.step(done, total)
            check_scores(scores, rows, columns)
            yield scores

    def _score_batches(
        self, visual: Visual, texts: Texts, rows: Indices, positions: Indices
    ) -> Iterator[tuple[slice, Array]]:
        """Scores batch by batch, each fetched while the next one is computed, so that the device is never idle."""
        size, device, lengths = self.search.pace.batch_size, visual.mask.device, lengths_of(visual.mask).cpu().numpy()
        started, waiting = time.perf_counter(), list[tuple[slice, Tensor]]()
        for start in [*range(0, len(rows), size), None]:
            if start is not None:
                part = slice(start, min(start + size, len(rows)))
                longest = int(lengths[rows[part]].max())
                cut = Visual(visual.states[:, :longest], visual.mask[:, :longest])  # [N, R, D]
                images = cut.take(torch.from_numpy(rows[part]).to(device))  # [P, R, D]
                head, backbone = _rank_head(self.search.learner), self.search.backbone
                waiting.append((part, head.score_pairs(backbone, images, texts.take(positions[part]))))
            if start is None or len(waiting) > 1:
                part, scores = waiting.pop(0)
                yield part, scores.cpu().numpy()
                now = time.perf_counter()
                self.search.timing.batches.append(now - started)
                started = now


def _rank_head(learner: Learner) -> RankHead:
    if not isinstance(learner.head, RankHead):
        raise TypeError(f"expected a head that scores pairs, not {type(learner.head).__name__}")
    return learner.head
