"""Pairs of a gallery's pictures and texts through a cross-encoder, a block of pictures at a time.

Shapes: N pictures, M texts, P pairs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vlbench.core.backbone import Visual
from vlbench.core.errors import DataError
from vlbench.core.gallery import Gallery
from vlbench.engine.batching.block_store import Array, Shelf
from vlbench.engine.evaluators.gallery import Places, Texts, lengths_of, read_all, see
from vlbench.engine.evaluators.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace, Timing

PICTURES, PAIRS = 16, 1 << 16
"""A block has at most so many pictures and, where it is more than one, so many pairs: what a killed run loses."""


@dataclass(frozen=True)
class Crossing:
    """Scores of a gallery's pairs. How they are cut into batches depends on gallery and batch size, never on ranks."""

    learner: Learner
    gallery: Gallery
    shelf: Shelf
    pace: Pace
    timing: Timing

    @property
    def blocks(self) -> list[range]:
        """The rows of each block of pictures."""
        size = max(1, min(PICTURES, PAIRS // len(self.gallery.texts), self.pace.batch_size))
        rows = range(len(self.gallery.images))
        return [rows[start : start + size] for start in rows[::size]]

    def all_pairs(self) -> Array:
        """The scores [N, M] of every picture with every text.

        Raises:
            DataError: a score is not a number, naming the pair; or as `Shelf.fill` does.
            Interrupted: asked to stop.
        """
        blocks, texts = self.blocks, len(self.gallery.texts)

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            chosen = [blocks[number] for number in numbers]
            # Every rank reads all texts; one counts them.
            self.timing.examples += sum(map(len, chosen)) + (texts if self.pace.ranks.is_main else 0)
            pairs = [(np.repeat(block, texts), np.tile(np.arange(texts), len(block))) for block in chosen]
            return (scores.reshape(-1, texts) for scores in self._scored(chosen, pairs))

        return self.shelf.fill("scores", [len(block) for block in blocks], make)

    def some_pairs(self, rows: Places, columns: Places) -> Array:
        """The scores [P] of these pairs, whose rows do not fall; raises as `all_pairs` does."""
        blocks = self.blocks
        edges = np.searchsorted(rows, [block.start for block in blocks] + [len(self.gallery.images)])

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            parts = [slice(edges[number], edges[number + 1]) for number in numbers]
            return self._scored([blocks[number] for number in numbers], [(rows[part], columns[part]) for part in parts])

        return self.shelf.fill("looked-at", np.diff(edges).tolist(), make)

    def _scored(self, blocks: Sequence[range], pairs: Sequence[tuple[Places, Places]]) -> Iterator[Array]:
        """The scores of each block's pairs, given as their rows and columns in the gallery."""
        backbone, images = self.learner.parts[0], self.gallery.images
        texts = read_all(backbone, self.gallery.texts, self.pace, self.timing)
        place_of = np.argsort(texts.columns)
        done, total = 0, sum(len(rows) for rows, _ in pairs)
        seen = see(backbone, [images[block.start : block.stop] for block in blocks], self.pace)
        for block, (rows, columns), pictures in zip(blocks, pairs, seen, strict=True):
            order = np.lexsort((place_of[columns], rows))  # picture by picture, texts by length: little padding
            scores = np.empty(len(rows), np.float32)
            for part, found in self._batches(pictures, texts, rows[order] - block.start, place_of[columns][order]):
                scores[order[part]] = found
                done += len(found)
                self.pace.step(done, total)
            check_scores(scores, rows, columns)
            yield scores

    def _batches(self, pictures: Visual, texts: Texts, rows: Places, places: Places) -> Iterator[tuple[slice, Array]]:
        """Scores batch by batch, each fetched when the next one is under way, so that no device stands still."""
        size, device, lengths = self.pace.batch_size, pictures.mask.device, lengths_of(pictures.mask).cpu().numpy()
        started, waiting = time.perf_counter(), list[tuple[slice, Tensor]]()
        for start in [*range(0, len(rows), size), None]:
            if start is not None:
                part = slice(start, min(start + size, len(rows)))
                longest = int(lengths[rows[part]].max())
                cut = Visual(pictures.states[:, :longest], pictures.mask[:, :longest])
                seen = cut.take(torch.from_numpy(rows[part]).to(device))
                waiting.append((part, self._fused(seen, texts, places[part])))
            if start is None or len(waiting) > 1:
                part, scores = waiting.pop(0)
                yield part, scores.cpu().numpy()
                now = time.perf_counter()
                self.timing.batches.append(now - started)
                started = now

    def _fused(self, seen: Visual, texts: Texts, places: Places) -> Tensor:
        """The scores [P] of a batch, in float32 whatever the backbone computes in."""
        backbone, head = self.learner.parts
        features = backbone.fuse(seen, texts.take(places))
        with torch.autocast(features.pooled.device.type, enabled=False):
            return head(replace(features, pooled=features.pooled.float()))


def check_scores(scores: Array, rows: Places, columns: Places) -> None:
    """Refuse scores [P] one of which is not a number.

    Raises:
        DataError: the first such pair.
    """
    if np.isnan(scores.min(initial=np.inf)):
        wrong = int(np.isnan(scores).argmax())
        raise DataError(
            f"the score of picture {rows[wrong]} with text {columns[wrong]} is not a number: training has diverged or "
            f"the precision is too low; try a smaller --lr or, with another --dtype, float32"
        )
