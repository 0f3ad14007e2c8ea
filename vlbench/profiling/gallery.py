"""What one text costs against a gallery of pictures that were encoded before.

Shapes: G pictures of the gallery, P pairs of one forward, E embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.backbone import Backbone, DualEncoder, Textual, Visual
from vlbench.core.errors import is_out_of_memory
from vlbench.core.profile import GalleryQuery
from vlbench.heads.dual import DualHead
from vlbench.profiling import memory
from vlbench.profiling.build import Opened
from vlbench.profiling.stages import SeeReadFuse, Subject
from vlbench.profiling.stopping_rule import Rule
from vlbench.profiling.timing import LONG, Durations, Stage, measure_one, once

GALLERIES = (100, 1_000, 10_000, 100_000, 1_000_000)
SHORTLIST = 100
"""Pairs that a two-stage search looks at together."""
_PAIRS = 50
_PASSES = 3
"""Of the pairs at least: one that warms up, and two that count."""
_SHARE = 0.5
"""Of the memory that is free, for an index that is measured; the cost of a larger one is computed."""
_TOP = 10
_PIECES = 10
"""Of work, about, that a model's searches are put together of, and share its time."""


@dataclass
class Stopwatch:
    """Times pieces of work, in so many seconds for all of them.

    keep: given the raw values, the batch and the name of each piece. step: told what is being timed.
    """

    rule: Rule
    max_seconds: float
    device: torch.device
    keep: Callable[[Durations, int, str], None]
    step: Callable[[str], None]
    begun: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.max_seconds - (time.perf_counter() - self.begun)

    def milliseconds(self, what: str, work: Callable[[], object], batch: int = 1, most: float | None = None) -> float:
        """Median; most: seconds for it, left out a tenth of all."""
        self.step(what)
        seconds = self.max_seconds / _PIECES if most is None else most
        found = measure_one([Stage("", work)], self.rule, seconds, self.device)
        self.keep(found, batch, what)
        return 1000 * float(np.median(found.whole))

    def roughly(self, what: str, work: Callable[[], object]) -> float:
        """Seconds that it takes once, after it has run before, if that was not long."""
        self.step(what)
        seconds = once([Stage("", work)], self.device)[1]
        if seconds <= LONG:
            seconds = once([Stage("", work)], self.device)[1]
        self.keep(Durations(whole=[seconds], rounds=[0]), 1, what)
        return seconds


def gallery_costs(opened: Opened, subject: Subject, watch: Stopwatch) -> Iterator[GalleryQuery]:
    """Milliseconds per query: by embeddings, by a shortlist of 100 looked at pair by pair, or by every pair.

    Every gallery that fits into free memory and into the time is searched; of pairs 100 are looked at, or as many as
    there is time for. What more would cost is computed, and so is a two-stage search, the sum of the two.

    Raises:
        RuntimeError, MemoryError: out of memory with 100 pictures.
    """
    if not isinstance(subject, SeeReadFuse) or subject.seen is None or subject.was_read is None:
        return
    backbone = subject.backbone
    embeds = isinstance(backbone, DualEncoder)
    dual = {}
    if embeds:
        dual = _dual(cast(DualEncoder, backbone), backbone, subject, watch)
        yield from dual.values()
    if isinstance(opened.head, DualHead):
        return
    reading = watch.milliseconds("read", lambda: backbone.read(subject.words))
    pairs, ranking = _rank(subject, subject.seen, subject.was_read, reading, watch)
    per_pair = max(ranking - reading, 0.0) / pairs
    for size in GALLERIES:
        if embeds:
            cost = dual[size].ms + min(size, SHORTLIST) * per_pair
            yield GalleryQuery(how="two-stage", gallery=size, ms=cost, measured=False)
        beyond = size - pairs
        yield GalleryQuery(how="cross-encoder", gallery=size, ms=ranking + beyond * per_pair, measured=not beyond)


def _dual(encoder: DualEncoder, backbone: Backbone, subject: SeeReadFuse, watch: Stopwatch) -> dict[int, GalleryQuery]:
    """Reading and embedding the text, then the ten nearest of the index."""
    text = encoder.embed_texts(backbone.read(subject.words))
    embedding = watch.milliseconds("read, embed", lambda: encoder.embed_texts(backbone.read(subject.words)))
    found: dict[int, GalleryQuery] = {}
    largest, slowest, making, fits = 0, 0.0, 0.0, True
    for size in GALLERIES:
        # An index takes as many times as long to make as it is larger, which no measuring can stop.
        fits = fits and (not found or making * size / largest < watch.left)
        timed = _searching(size, text, watch, needed=not found) if fits else None
        fits = timed is not None
        if timed is not None:
            largest, (making, slowest) = size, timed
        # Beyond the largest that fitted, in proportion to it.
        found[size] = GalleryQuery(how="dual", gallery=size, ms=embedding + slowest * size / largest, measured=fits)
    return found


def _searching(size: int, text: Tensor, watch: Stopwatch, needed: bool) -> tuple[float, float] | None:
    """Seconds that making an index [G, E] takes, and milliseconds of a search in it; None where memory is short, which
    is raised where it is needed."""
    try:
        there = memory.free(text.device)
        if not needed and there is not None and 4 * size * text.shape[1] > _SHARE * there:
            return None
        begun = time.perf_counter()
        index = torch.randn(size, text.shape[1], device=text.device)
        functional.normalize(index, dim=-1, out=index)
        making = time.perf_counter() - begun
        query = text[:1].float()
        return making, watch.milliseconds(f"search {size:,}", lambda: (query @ index.T).topk(_TOP, dim=1))
    except (RuntimeError, MemoryError) as error:
        if needed or not is_out_of_memory(error):
            raise
        return None


def _rank(subject: SeeReadFuse, seen: Visual, read: Textual, reading: float, watch: Stopwatch) -> tuple[int, float]:
    """As many of 100 pairs as there is time for, and milliseconds of reading and looking at them.

    One pair tells how many those are, and takes longer than among others; where there is no time for two it is all.
    """
    one = watch.roughly("a pair", _looking(subject, seen, read, 1))
    count = min(int(watch.left / (_PASSES * one)), SHORTLIST)
    if count < 2:
        return 1, reading + 1000 * one
    look = _looking(subject, seen, read, count)
    work: Callable[[], object] = lambda: (subject.backbone.read(subject.words), look())  # noqa: E731
    return count, watch.milliseconds("read, pairs", work, count, watch.left)


def _looking(subject: SeeReadFuse, seen: Visual, read: Textual, count: int) -> Callable[[], object]:
    """One text with so many pictures, in batches of 50."""
    rows = torch.zeros(_PAIRS, dtype=torch.int64, device=subject.device)
    batches = [rows[: count - done] for done in range(0, count, _PAIRS)]

    def work() -> None:
        for of in batches:
            subject.head(subject.backbone.fuse(seen.take(of), read.take(of)))

    return work
