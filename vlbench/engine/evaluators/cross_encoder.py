"""A gallery ranked by a cross-encoder: its pairs are scored block by block of images.

Shapes: N images, M texts, P pairs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
from vlbench.engine.evaluators.gallery import Places, Texts, check_scores, lengths_of, read_all, see
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
"""A block has at most so many images and, where it is more than one, so many pairs: what a killed run loses."""


class CrossEncoder(Retrieval):
    """Ranks a gallery pair by pair, or the best by embeddings pair by pair."""

    def build_head(self, model: Model) -> Head:
        """A score per pair."""
        job = self.job
        return build_head(job.task.card, job.card, model.width, (), job.spec.train)

    @property
    def loads_head(self) -> bool:
        """Also untrained: pretraining leaves an ITM head."""
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
            pairs += (
                images * texts if k is None else min(images * texts, images * min(k, texts) + texts * min(k, images))
            )
        return pairs, "pairs"

    def most_at_once(self, examples: Examples) -> int:
        """Pairs of a batch."""
        return self.job.spec.eval_batch_size

    def try_out(self, learner: Learner, examples: Examples, size: int, pace: Pace) -> None:
        """Score so many pairs of a few images and texts."""
        few, device = examples[:8], pace.accelerator.device
        batch = learner.head.collate(few, range(len(few)), learner.model).to(device)
        with torch.inference_mode(), pace.accelerator.autocast():
            visual, textual = encode_pairs(learner.model, batch)
            rows = torch.arange(size, device=device) % len(visual.mask)
            _head(learner).score_pairs(Forward(learner.model, batch).backbone, visual.take(rows), textual.take(rows))


def by_pairs(search: Search, rerank_k: int | None = None) -> dict[int, list[Ranking]]:
    """Rankings by the scores of all pairs; with `rerank_k` of those that are best by embeddings, for each smaller k."""
    crossing = Crossing(search)
    if rerank_k is None:
        return {0: from_matrix(crossing.all_pairs(), search.gallery)}
    return in_two_stages(search.dot_products(), search.gallery, rerank_k, crossing.some_pairs)


@dataclass(frozen=True)
class Crossing:
    """Scores of a gallery's pairs. How they are cut into batches depends on gallery and batch size, never on ranks."""

    search: Search

    @property
    def blocks(self) -> list[range]:
        """The rows of each block of images."""
        size = max(1, min(IMAGES, PAIRS // len(self.search.gallery.texts), self.search.pace.batch_size))
        rows = range(len(self.search.gallery.images))
        return [rows[start : start + size] for start in rows[::size]]

    def all_pairs(self) -> Array:
        """The scores [N, M] of every image with every text.

        Raises:
            DataError: a score is not a number, naming the pair; or as `Shelf.fill` does.
            Interrupted: asked to stop.
        """
        blocks, texts = self.blocks, len(self.search.gallery.texts)

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            chosen = [blocks[number] for number in numbers]
            # Every rank reads all texts; one counts them.
            self.search.timing.examples += sum(map(len, chosen)) + (texts if self.search.pace.ranks.is_main else 0)
            pairs = [(np.repeat(block, texts), np.tile(np.arange(texts), len(block))) for block in chosen]
            return (scores.reshape(-1, texts) for scores in self._scored(chosen, pairs))

        return self.search.shelf.fill("scores", [len(block) for block in blocks], make)

    def some_pairs(self, rows: Places, columns: Places) -> Array:
        """The scores [P] of these pairs, whose rows do not fall; raises as `all_pairs` does."""
        blocks = self.blocks
        edges = np.searchsorted(rows, [block.start for block in blocks] + [len(self.search.gallery.images)])

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            parts = [slice(edges[number], edges[number + 1]) for number in numbers]
            return self._scored([blocks[number] for number in numbers], [(rows[part], columns[part]) for part in parts])

        return self.search.shelf.fill("looked-at", np.diff(edges).tolist(), make)

    def _scored(self, blocks: Sequence[range], pairs: Sequence[tuple[Places, Places]]) -> Iterator[Array]:
        """The scores of each block's pairs, given as their rows and columns in the gallery."""
        backbone, images = self.search.backbone, self.search.gallery.images
        texts = read_all(backbone, self.search.gallery.texts, self.search.pace, self.search.timing)
        place_of = np.argsort(texts.columns)
        done, total = 0, sum(len(rows) for rows, _ in pairs)
        seen = see(backbone, [images[block.start : block.stop] for block in blocks], self.search.pace)
        for block, (rows, columns), pictures in zip(blocks, pairs, seen, strict=True):
            order = np.lexsort((place_of[columns], rows))  # image by image, texts by length: little padding
            scores = np.empty(len(rows), np.float32)
            for part, found in self._batches(pictures, texts, rows[order] - block.start, place_of[columns][order]):
                scores[order[part]] = found
                done += len(found)
                self.search.pace.step(done, total)
            check_scores(scores, rows, columns)
            yield scores

    def _batches(self, images: Visual, texts: Texts, rows: Places, places: Places) -> Iterator[tuple[slice, Array]]:
        """Scores batch by batch, each fetched when the next one is under way, so that no device stands still."""
        size, device, lengths = self.search.pace.batch_size, images.mask.device, lengths_of(images.mask).cpu().numpy()
        started, waiting = time.perf_counter(), list[tuple[slice, Tensor]]()
        for start in [*range(0, len(rows), size), None]:
            if start is not None:
                part = slice(start, min(start + size, len(rows)))
                longest = int(lengths[rows[part]].max())
                cut = Visual(images.states[:, :longest], images.mask[:, :longest])
                seen = cut.take(torch.from_numpy(rows[part]).to(device))
                waiting.append((part, self._scores(seen, texts, places[part])))
            if start is None or len(waiting) > 1:
                part, scores = waiting.pop(0)
                yield part, scores.cpu().numpy()
                now = time.perf_counter()
                self.search.timing.batches.append(now - started)
                started = now

    def _scores(self, visual: Visual, texts: Texts, places: Places) -> Tensor:
        """The scores [P] of a batch."""
        return _head(self.search.learner).score_pairs(self.search.backbone, visual, texts.take(places))


def _head(learner: Learner) -> RankHead:
    if not isinstance(learner.head, RankHead):
        raise TypeError(f"expected a head that scores pairs, not {type(learner.head).__name__}")
    return learner.head
