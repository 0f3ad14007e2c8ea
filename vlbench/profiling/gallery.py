"""The cost of one text query against a gallery of images that were encoded before.

Shapes: G images of the gallery, P pairs of one forward pass, E embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.backbone import DualEncoder
from vlbench.core.errors import is_out_of_memory
from vlbench.core.profile import GalleryQuery
from vlbench.heads.forward import ENCODE, Forward, dual_encoder
from vlbench.profiling import memory
from vlbench.profiling.build import BuiltModel
from vlbench.profiling.stages import StagedModel
from vlbench.profiling.stopping_rule import StoppingRule
from vlbench.profiling.timing import LONG, Durations, Stage, measure_one, run_once

GALLERIES = (100, 1_000, 10_000, 100_000, 1_000_000)
SHORTLIST = 100
"""Pairs that a two-stage search re-ranks with the cross-encoder."""
_PAIRS = 50
_PASSES = 3
"""The least number of passes over the pairs: one to warm up, and two that count."""
_SHARE = 0.5
"""The share of free memory that a measured index may take; the cost of a larger one is computed."""
_TOP = 10
_PIECES = 10
"""About how many pieces of work a model's searches consist of; each may take an equal part of the time."""


@dataclass
class Stopwatch:
    """A timer of pieces of work with a common time limit.

    max_seconds: for all pieces together. keep: called with the raw durations, the batch size and the name of each
    piece. step: called with the name of what is being timed.
    """

    rule: StoppingRule
    max_seconds: float
    device: torch.device
    keep: Callable[[Durations, int, str], None]
    step: Callable[[str], None]
    begun: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.max_seconds - (time.perf_counter() - self.begun)

    def median_ms(self, name: str, work: Callable[[], object], batch: int = 1, limit: float | None = None) -> float:
        """The median of the work in milliseconds; limit: in seconds, by default a tenth of the whole."""
        self.step(name)
        seconds = self.max_seconds / _PIECES if limit is None else limit
        durations = measure_one([Stage("", work)], self.rule, seconds, self.device)
        self.keep(durations, batch, name)
        return 1000 * float(np.median(durations.whole))

    def estimate_seconds(self, name: str, work: Callable[[], object]) -> float:
        """Seconds of one run of the work, after a run to warm up unless that one is long."""
        self.step(name)
        seconds = run_once([Stage("", work)], self.device)[1]
        if seconds <= LONG:
            seconds = run_once([Stage("", work)], self.device)[1]
        self.keep(Durations(whole=[seconds], rounds=[0]), 1, name)
        return seconds


def measure_queries(built: BuiltModel, staged: StagedModel, watch: Stopwatch) -> Iterator[GalleryQuery]:
    """Milliseconds per query: by embeddings, by re-ranking a shortlist of 100 pairs, or by scoring every pair.

    Every gallery that fits into free memory and into the time is searched; of the pairs 100 are scored, or as many as
    there is time for. The cost of larger galleries is computed, and so is that of a two-stage search, as the sum of
    both parts.

    Raises:
        RuntimeError, MemoryError: out of memory with 100 images.
    """
    names = [stage.name for stage in staged.forward_stages()]
    if "read" not in names:
        return
    dual: dict[int, GalleryQuery] = {}
    if embeds := isinstance(staged.model, DualEncoder):
        dual = _search_by_embeddings(staged, watch)
        yield from dual.values()
    if "fuse" not in names:
        return
    reading = watch.median_ms("read", _read(staged))
    pairs, ranking = _rank_pairs(staged, reading, watch)
    per_pair = max(ranking - reading, 0.0) / pairs
    for size in GALLERIES:
        if embeds:
            ms = dual[size].ms + min(size, SHORTLIST) * per_pair
            yield GalleryQuery(how="two-stage", gallery=size, ms=ms, measured=False)
        beyond = size - pairs
        yield GalleryQuery(how="cross-encoder", gallery=size, ms=ranking + beyond * per_pair, measured=not beyond)


def _read(staged: StagedModel) -> Callable[[], object]:
    """Work that encodes the text."""
    return next(stage.run for stage in staged.forward_stages() if stage.name == "read")


def _forward(staged: StagedModel) -> Forward:
    if staged.forward is None:
        raise RuntimeError("the model has no inputs")
    return staged.forward


def _search_by_embeddings(staged: StagedModel, watch: Stopwatch) -> dict[int, GalleryQuery]:
    """The cost of reading and embedding the text and finding its ten nearest images, by gallery size."""
    encoder, read = dual_encoder(staged.model), _read(staged)

    def embed() -> Tensor:
        read()
        return encoder.embed_texts(_forward(staged).textual)

    text = embed()
    embedding = watch.median_ms("read, embed", embed)
    queries: dict[int, GalleryQuery] = {}
    largest, slowest, making, fits = 0, 0.0, 0.0, True
    for size in GALLERIES:
        # The time to make an index grows with its size, and making cannot be interrupted.
        fits = fits and (not queries or making * size / largest < watch.left)
        timed = _search_index(size, text, watch, required=not queries) if fits else None
        fits = timed is not None
        if timed is not None:
            largest, (making, slowest) = size, timed
        # Beyond the largest index that fitted, the cost is computed in proportion to it.
        queries[size] = GalleryQuery(how="dual", gallery=size, ms=embedding + slowest * size / largest, measured=fits)
    return queries


def _search_index(size: int, text: Tensor, watch: Stopwatch, required: bool) -> tuple[float, float] | None:
    """Seconds to make an index [G, E], and milliseconds of a search in it.

    Returns None if memory is short, unless the index is required: then the error is raised.
    """
    try:
        free = memory.free_bytes(text.device)
        if not required and free is not None and 4 * size * text.shape[1] > _SHARE * free:
            return None
        begun = time.perf_counter()
        index = torch.randn(size, text.shape[1], device=text.device)
        functional.normalize(index, dim=-1, out=index)
        making = time.perf_counter() - begun
        query = text[:1].float()
        return making, watch.median_ms(f"search {size:,}", lambda: (query @ index.T).topk(_TOP, dim=1))
    except (RuntimeError, MemoryError) as error:
        if required or not is_out_of_memory(error):
            raise
        return None


def _rank_pairs(staged: StagedModel, reading: float, watch: Stopwatch) -> tuple[int, float]:
    """The number of pairs there is time for, at most 100, and the milliseconds to read the text and score them.

    A single pair predicts that number; it takes longer than a pair in a batch. If there is no time for two pairs, the
    single pair is the result.
    """
    one = watch.estimate_seconds("a pair", _score_pairs(staged, 1))
    count = min(int(watch.left / (_PASSES * one)), SHORTLIST)
    if count < 2:
        return 1, reading + 1000 * one
    read, score = _read(staged), _score_pairs(staged, count)
    return count, watch.median_ms("read, pairs", lambda: (read(), score()), count, watch.left)


def _score_pairs(staged: StagedModel, count: int) -> Callable[[], object]:
    """Work that scores one text with `count` images, in batches of 50."""
    encoded, rows = _forward(staged), torch.zeros(_PAIRS, dtype=torch.int64, device=staged.device)
    batches = [rows[: count - done] for done in range(0, count, _PAIRS)]

    def work() -> None:
        for batch in batches:
            forward = Forward(staged.model, replace(encoded.pairs, image_rows=batch, text_rows=batch))
            forward.visual, forward.textual = encoded.visual, encoded.textual
            for stage in staged.head.stages()[len(ENCODE) :]:
                stage.run(forward)

    return work
