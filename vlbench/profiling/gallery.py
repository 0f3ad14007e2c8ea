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
from vlbench.core.profile import ProfileSpec, Query
from vlbench.heads.dual import DualHead
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
_LARGEST = 1 << 29
"""Numbers in an index that is measured; a larger one is computed from it."""
_TOP = 10
_PIECES = 10
"""Of work, about, that a model's searches are put together of, and share its time."""


def gallery_costs(opened: Opened, subject: Subject, spec: ProfileSpec, device: torch.device) -> Iterator[Query]:
    """Milliseconds per query: by embeddings, by a shortlist of 100 looked at pair by pair, or by every pair.

    Every gallery that fits into memory is searched; of pairs, 100 are looked at, and what more would cost is computed.
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
    shortlist = milliseconds(_pairs_of(subject, backbone, subject.seen, read_one))
    per_pair = shortlist / SHORTLIST
    for size in GALLERIES:
        if embeds:
            cost = dual[size].ms + min(size, SHORTLIST) * per_pair
            yield Query(how="two-stage", gallery=size, ms=cost, measured=dual[size].measured)
        yield Query(how="cross-encoder", gallery=size, ms=reading + size * per_pair, measured=size <= SHORTLIST)


def _dual(
    encoder: DualEncoder,
    backbone: Backbone,
    subject: SeeReadFuse,
    milliseconds: Callable[[Callable[[], object]], float],
) -> dict[int, Query]:
    """Reading and embedding the text, then the ten nearest of the index."""
    text = encoder.embed_texts(backbone.read(subject.words))
    embedding = milliseconds(lambda: encoder.embed_texts(backbone.read(subject.words)))
    found: dict[int, Query] = {}
    largest, slowest = 0, 0.0
    for size in GALLERIES:
        if size * text.shape[1] <= _LARGEST:
            index = functional.normalize(torch.randn(size, text.shape[1], device=text.device), dim=-1)
            searching = milliseconds(_search(index, text))
            largest, slowest = size, searching
            found[size] = Query(how="dual", gallery=size, ms=embedding + searching, measured=True)
        else:  # in proportion to the largest that fitted
            found[size] = Query(how="dual", gallery=size, ms=embedding + slowest * size / largest, measured=False)
    return found


def _search(index: Tensor, text: Tensor) -> Callable[[], object]:
    query = text[:1].float()
    return lambda: (query @ index.T).topk(_TOP, dim=1)


def _pairs_of(subject: SeeReadFuse, backbone: Backbone, seen: Visual, read: Textual) -> Callable[[], object]:
    """One text with 100 pictures, in batches of 50."""
    rows = torch.zeros(_PAIRS, dtype=torch.int64, device=subject.device)

    def work() -> None:
        for _ in range(SHORTLIST // _PAIRS):
            subject.head(backbone.fuse(seen.take(rows), read.take(rows)))

    return work
