"""A gallery ranked by the embeddings of a dual encoder, and what all rankings have in common.

Shapes: N images, M texts, E embedding width.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from vlbench.core.backbone import Backbone, Model
from vlbench.core.examples import Examples, captioned
from vlbench.core.gallery import Gallery, galleries
from vlbench.core.record import Coverage, Prompting
from vlbench.core.results import Prediction, Ranking
from vlbench.data.cache.folder import atomic_write
from vlbench.engine.batching.block_store import Array, BlockStore
from vlbench.engine.batching.prediction_shards import state_sha256
from vlbench.engine.evaluators.base import Evaluator, ResultFolders, Results
from vlbench.engine.evaluators.gallery import blocks_of, check_scores, encode_images, encode_texts
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.heads.base import Head
from vlbench.heads.build import build_head
from vlbench.heads.forward import dual_encoder
from vlbench.metrics.coverage import ranking_coverage
from vlbench.metrics.ranks import from_matrix
from vlbench.metrics.retrieval import random_recalls, recalls
from vlbench.records.folder import RunFolder
from vlbench.records.rankings import write_ranks
from vlbench.records.samples import SampleRow, sample_rows

PRODUCTS = 1 << 24
"""The number of dot products that are computed together."""

Item = TypeVar("Item")


class Retrieval(Evaluator):
    """Ranks a gallery by the dot products of embeddings."""

    def build_head(self, model: Model) -> Head:
        """The temperature of the dot products."""
        job = self.job
        return build_head(job.task.card, job.card, model.width, (), job.spec.train)

    def rank(self, search: Search) -> dict[int, list[Ranking]]:
        """As `by_embeddings`."""
        return by_embeddings(search)

    def evaluate(
        self, learner: Learner, examples: Examples, pace: Pace, folders: ResultFolders | None = None
    ) -> tuple[list[Ranking], Timing]:
        """As `retrieve`."""
        return retrieve(learner, examples, pace, self.rank, self.job.spec.rerank_k, folders.scores if folders else None)

    def run_batch(self, learner: Learner, examples: Examples, size: int, pace: Pace) -> None:
        """Embed and compare `size` images and texts."""
        batch = learner.head.collate(examples, range(size), learner.model)
        with torch.inference_mode(), pace.accelerator.autocast():
            learner(batch.to(pace.accelerator.device))

    def prompting(self, learner: Learner, examples: Examples) -> Prompting | None:
        """None: texts are encoded as they are."""
        return None

    def coverage(self, results: Results) -> Coverage:
        """How the ids of the rankings match those of the gallery, in both directions."""
        return ranking_coverage(captioned(self.job.report), rankings_of(results))

    def sample_rows(self, results: Results, control: str) -> Iterator[SampleRow]:
        """One row per text: the best images, correct where its own image came first."""
        rankings = [ranking for ranking in rankings_of(results) if ranking.direction == "t2i"]
        predictions = [Prediction(ranking.query_id, ranking.top[0][0], dict(ranking.top)) for ranking in rankings]
        main = {ranking.query_id: float(ranking.rank_high == 0) for ranking in rankings}
        return sample_rows(self.job.report, predictions, main, self.job.spec.split, control)

    def write(self, folder: RunFolder, results: Results) -> None:
        """Write the rankings."""
        write_ranks(folder.ranks, rankings_of(results))

    def random_scores(self) -> Mapping[str, float]:
        """The expected recall of a random ranking."""
        return random_recalls(captioned(self.job.report))


def rankings_of(results: Sequence[Prediction] | Sequence[Ranking]) -> list[Ranking]:
    """The rankings among results."""
    return [result for result in results if isinstance(result, Ranking)]


def by_embeddings(search: Search) -> dict[int, list[Ranking]]:
    """Rankings by the dot products of all embeddings."""
    return {0: from_matrix(search.dot_products(), search.gallery)}


def retrieve(
    learner: Learner,
    examples: Examples,
    pace: Pace,
    rank: Callable[[Search], dict[int, list[Ranking]]],
    rerank_k: int | None = None,
    keep: Path | None = None,
) -> tuple[list[Ranking], Timing]:
    """Rank the texts of every image and the images of every text, fold by fold, in evaluation mode.

    Scores do not depend on the number of ranks or on interruptions; every rank returns all rankings.

    Args:
        rank: returns a gallery's rankings by the number of candidates of each query scored as pairs; 0 with one stage.
        rerank_k: of two stages, how many of each query's best by embeddings are scored as pairs; they stay before all
            others, which keep the order of the embeddings. None with one stage.
        keep: a folder for scores and embeddings; those of the same learner and gallery are not computed again. With two
            stages `by-depth.json` holds the recalls, in percent, of every smaller `rerank_k`. None keeps nothing.

    Raises:
        DataError: a score is not a number, naming the pair, or cannot be written.
        VlbenchError: the model has no embeddings where they are needed.
        Interrupted: asked to stop.
    """
    timing, curve = Timing(), dict[int, list[Ranking]]()
    with learner.evaluating(), torch.inference_mode(), pace.accelerator.autocast():
        for number, gallery in enumerate(galleries(captioned(examples))):
            folder = keep / f"fold-{number}" if keep else None
            store = BlockStore(pace.ranks, folder, _key(learner, gallery, pace, rerank_k) if folder else "")
            search = Search(learner, gallery, store, pace, timing)
            for depth, rankings in rank(search).items():
                curve.setdefault(depth, []).extend(rankings)
    if rerank_k is not None and keep and pace.ranks.is_main:
        by_depth = {depth: recalls(rankings, captioned(examples)) for depth, rankings in curve.items()}
        atomic_write(keep / "by-depth.json", json.dumps(by_depth, indent=1) + "\n")
    return curve[max(curve)], timing


@dataclass(frozen=True)
class Search:
    """The search of one gallery by a learner. store: of scores and embeddings. timing: to add to."""

    learner: Learner
    gallery: Gallery
    store: BlockStore
    pace: Pace
    timing: Timing

    @property
    def backbone(self) -> Backbone:
        """The learner's model."""
        return cast(Backbone, self.learner.model)

    def dot_products(self) -> Array:
        """The dot products [N, M] of all embeddings [N, E] and [M, E], in float32."""
        encoder, backbone, pace = dual_encoder(self.learner.model), self.backbone, self.pace
        images = self._embed(
            "images",
            self.gallery.images,
            lambda blocks: map(encoder.embed_images, encode_images(backbone, blocks, pace)),
        )
        texts = self._embed(
            "texts", self.gallery.texts, lambda blocks: map(encoder.embed_texts, encode_texts(backbone, blocks, pace))
        )
        blocks = blocks_of(range(len(images)), max(1, PRODUCTS // len(texts)))

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            others = self._on_device(texts).T
            for number in numbers:
                rows = np.asarray(blocks[number])
                with torch.autocast(others.device.type, enabled=False):
                    scores: Array = (self._on_device(images[rows]) @ others).cpu().numpy()
                check_scores(scores, *np.broadcast_arrays(rows[:, None], np.arange(len(texts))))
                yield scores

        return self.store.fill("quick", [len(block) for block in blocks], make)

    def _embed(
        self, name: str, items: Sequence[Item], embed: Callable[[Sequence[Sequence[Item]]], Iterator[Tensor]]
    ) -> Array:
        """The embeddings [N, E] of all images or [M, E] of all texts."""
        blocks = blocks_of(items, self.pace.batch_size)

        def make(numbers: Sequence[int]) -> Iterator[Array]:
            started = time.perf_counter()
            for vectors in embed([blocks[number] for number in numbers]):
                yield vectors.float().cpu().numpy()
                now = time.perf_counter()
                self.timing.batches.append(now - started)
                self.timing.examples += len(vectors)
                started = now

        return self.store.fill(name, [len(block) for block in blocks], make)

    def _on_device(self, vectors: Array) -> Tensor:
        return torch.from_numpy(np.array(vectors)).to(self.pace.accelerator.device)


def _key(learner: Learner, gallery: Gallery, pace: Pace, rerank_k: int | None) -> str:
    """A hash of all that scores depend on: weights, gallery, and how pairs are cut into batches and computed."""
    accelerator, contents = pace.accelerator, [[ref.key for ref in gallery.images], gallery.text_ids, gallery.texts]
    computing = [pace.batch_size, rerank_k, accelerator.device.type, accelerator.mixed_precision]
    material = [type(learner.head).__name__, state_sha256(learner), contents, computing]
    return hashlib.sha256(json.dumps(material).encode()).hexdigest()
