"""The model under examination: its scores for examples, however they are put to it.

Shapes: n examples, B of a batch, C answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from vlbench.core.examples import Answered, Example, Examples, consensus_of
from vlbench.engine.batching.batches import Batches, loader, sequential_blocks
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner

Value = TypeVar("Value")
BATCH = 16
"""Examples per forward, where nothing else is tried."""
CANDIDATES = 8
"""Answers of which a model that writes is asked how likely they are."""


@dataclass(frozen=True)
class Subject:
    """A learner on its device. candidates: of a model that writes, the answers its scores are about."""

    job: Job
    learner: Learner
    device: torch.device
    candidates: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        """Examples per forward."""
        return min(BATCH, self.job.spec.eval_batch_size or BATCH)

    def scores(
        self,
        examples: Examples,
        batch: int | None = None,
        dtype: torch.dtype | None = None,
        beside: Examples = (),
        backwards: bool = False,
    ) -> Tensor:
        """What the model makes of the examples, [n, C] float32 on the CPU.

        The logits of a classifier; log-likelihoods of the candidates; of a model that ranks, the scores of the own
        picture and of another one's (C = 2).

        Args:
            examples: asked in their order, and answered for in it.
            batch: how many per forward.
            dtype: the precision to compute with; float32 unless told otherwise.
            beside: examples that join each batch and are not answered for.
            backwards: asked from the last to the first.
        """
        columns = [list(examples), strangers(examples)] if self.job.kind.ranks_gallery else [list(examples)]
        if backwards:
            columns = [column[::-1] for column in columns]
        found = [torch.cat(list(self._forwards(column, batch or self.batch, dtype, beside))) for column in columns]
        together = torch.cat(found, dim=1)
        return together.flip(0) if backwards else together

    def _forwards(
        self, examples: Examples, batch: int, dtype: torch.dtype | None, beside: Examples
    ) -> Iterator[Tensor]:
        rows = [len(examples) + number for number in range(len(beside))]
        blocks = [block + rows for block in sequential_blocks(len(examples), batch)]
        self.learner.eval()
        with torch.inference_mode(), self._precision(dtype):
            head, model = self.learner.head.choosing(self.candidates), self.learner.model
            for batch_ready in loader(Batches([*examples, *beside], blocks, model, head), 0, self.device):
                scores = head.scores(model, batch_ready.to(self.device))
                yield scores[: len(batch_ready.ids) - len(rows)].float().cpu()

    def _precision(self, dtype: torch.dtype | None) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()

    @property
    def answers(self) -> tuple[str, ...]:
        """What the C scores stand for; of a model that ranks, whether a pair belongs together."""
        if self.job.kind.ranks_gallery:
            return ("own", "other")
        return self.candidates or self.job.labels

    def right(self, scores: Tensor, examples: Examples) -> float:
        """The share of examples, in percent, whose best score [n, C] is that of an answer that is right for them."""
        best = [self.answers[place] for place in scores.argmax(dim=1).tolist()]
        sole = (scores == scores.amax(dim=1, keepdim=True)).sum(dim=1) == 1  # what scores alike was not told apart
        told = [
            alone and (answer == "own" if self.job.kind.ranks_gallery else answer in right_for(example))
            for answer, alone, example in zip(best, sole.tolist(), examples, strict=True)
        ]
        return 100 * float(sum(told)) / len(told)


def strangers(examples: Examples) -> list[Example[object]]:
    """The same texts, each under the pictures of the next example that has others; its own where none has."""
    images = _next_other([example.query.images for example in examples])
    return [
        replace(example, query=replace(example.query, images=other))
        for example, other in zip(examples, images, strict=True)
    ]


def retold(examples: Examples) -> list[Example[object]]:
    """The same pictures, each with the text of the next example that has another; its own where none has."""
    texts = _next_other([example.query.text for example in examples])
    return [
        replace(example, query=replace(example.query, text=other))
        for example, other in zip(examples, texts, strict=True)
    ]


def _next_other(values: Sequence[Value]) -> list[Value]:
    """For each value the next one, from the last on to the first, that is another; itself where all are the same."""
    found, n = list(values), len(values)
    for place in reversed(range(2 * n)):  # two rounds: what the last ones find may stand in front
        own, after = place % n, (place + 1) % n
        found[own] = values[after] if values[after] != values[own] else found[after]
    return found


def chosen(examples: Examples, wanted: int, seed: int) -> list[Example[object]]:
    """A seeded sample in the order of the examples, of as many groups as there are; fewer where all are fewer."""
    rows = random.Random(f"doctor {seed}").sample(range(len(examples)), len(examples))
    first = {examples[row].group: row for row in reversed(rows)}
    leading = set(first.values())
    rows.sort(key=lambda row: row not in leading)  # stable: of each group the first one drawn, then the rest
    return [examples[row] for row in sorted(rows[:wanted])]


def candidates_of(job: Job, examples: Examples) -> tuple[str, ...]:
    """Of a model that writes: the task's answers, else some that the examples have."""
    if not job.kind.generates:
        return ()
    return (job.labels or tuple(dict.fromkeys(map(consensus_of, examples))))[:CANDIDATES]


def right_for(example: Example[object]) -> frozenset[str]:
    """The answers worth most."""
    worths = example.reference.worths() if isinstance(example.reference, Answered) else {}
    return frozenset(answer for answer, worth in worths.items() if worth == max(worths.values()))
