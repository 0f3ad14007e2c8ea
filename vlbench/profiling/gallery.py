"""What one text costs against a gallery of pictures that were encoded before.

Shapes: G pictures of the gallery, P pairs of one forward, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.backbone import Backbone, DualEncoder, Textual, Visual
from vlbench.core.errors import is_out_of_memory
from vlbench.core.profile import ProfileSpec, Query
from vlbench.heads.dual import DualHead
from vlbench.profiling import memory
from vlbench.profiling.build import Opened
from vlbench.profiling.rule import Rule
from vlbench.profiling.subject import SeeReadFuse, Subject
from vlbench.profiling.timing import Stage, measure_one

Clock: TypeAlias = Callable[[Callable[[], object]], float]
"""Tells how many milliseconds a piece of work takes."""
GALLERIES = (100, 1_000, 10_000, 100_000, 1_000_000)
SHORTLIST = 100
"""Pairs that a two-stage search looks at together."""
_PAIRS = 50
_SHARE = 0.5
"""Of the memory that is free, for an index that is measured; the cost of a larger one is computed."""
_TOP = 10
_PIECES = 10
"""Of work, about, that a model's searches are put together of, and share its time."""


def gallery_costs(opened: Opened, subject: Subject, spec: ProfileSpec, device: torch.device) -> Iterator[Query]:
    """Milliseconds per query: by embeddings, by a shortlist of 100 looked at pair by pair, or by every pair.

    Every gallery that fits into free memory is searched; of pairs, 100 are looked at. What more would cost is computed,
    and so is a two-stage search, the sum of the two.

    Raises:
        RuntimeError, MemoryError: out of memory with 100 pictures.
    """
    if not isinstance(subject, SeeReadFuse) or subject.seen is None or subject.was_read is None:
        return
    rule, most = Rule(spec.iterations, 0.0, spec.precision), spec.max_seconds / len(spec.models) / _PIECES

    def milliseconds(work: Callable[[], object]) -> float:
        return 1000 * float(np.median(measure_one([Stage("", work)], rule, most, device).whole))

    backbone, read_one = subject.backbone, subject.was_read
    embeds = isinstance(backbone, DualEncoder)
    dual = {}
    if embeds:
        dual = _dual(cast(DualEncoder, backbone), backbone, subject, milliseconds)
        yield from dual.values()
    if isinstance(opened.head, DualHead):
        return
    reading = milliseconds(lambda: backbone.read(subject.words))
    pairs = _pairs_of(subject, backbone, subject.seen, read_one)
    ranking = milliseconds(lambda: (backbone.read(subject.words), pairs()))
    per_pair = max(ranking - reading, 0.0) / SHORTLIST
    for size in GALLERIES:
        if embeds:
            cost = dual[size].ms + min(size, SHORTLIST) * per_pair
            yield Query(how="two-stage", gallery=size, ms=cost, measured=False)
        beyond = max(size - SHORTLIST, 0)
        yield Query(how="cross-encoder", gallery=size, ms=ranking + beyond * per_pair, measured=not beyond)


def _dual(
    encoder: DualEncoder,
    backbone: Backbone,
    subject: SeeReadFuse,
    milliseconds: Clock,
) -> dict[int, Query]:
    """Reading and embedding the text, then the ten nearest of the index."""
    text = encoder.embed_texts(backbone.read(subject.words))
    embedding = milliseconds(lambda: encoder.embed_texts(backbone.read(subject.words)))
    found: dict[int, Query] = {}
    largest, slowest, fits = 0, 0.0, True
    for size in GALLERIES:
        searching = _searching(size, text, milliseconds, needed=not found) if fits else None
        fits = searching is not None
        if searching is not None:
            largest, slowest = size, searching
        # Beyond the largest that fitted, in proportion to it.
        found[size] = Query(how="dual", gallery=size, ms=embedding + slowest * size / largest, measured=fits)
    return found


def _searching(size: int, text: Tensor, milliseconds: Clock, needed: bool) -> float | None:
    """Milliseconds of a search in an index [G, E]; None where memory is short, which is raised where it is needed."""
    try:
        there = memory.free(text.device)
        if not needed and there is not None and 4 * size * text.shape[1] > _SHARE * there:
            return None
        index = torch.randn(size, text.shape[1], device=text.device)
        functional.normalize(index, dim=-1, out=index)
        query = text[:1].float()
        return milliseconds(lambda: (query @ index.T).topk(_TOP, dim=1))
    except (RuntimeError, MemoryError) as error:
        if needed or not is_out_of_memory(error):
            raise
        return None


def _pairs_of(subject: SeeReadFuse, backbone: Backbone, seen: Visual, read: Textual) -> Callable[[], object]:
    """One text with 100 pictures, in batches of 50."""
    rows = torch.zeros(_PAIRS, dtype=torch.int64, device=subject.device)

    def work() -> None:
        for _ in range(SHORTLIST // _PAIRS):
            subject.head(backbone.fuse(seen.take(rows), read.take(rows)))

    return work
