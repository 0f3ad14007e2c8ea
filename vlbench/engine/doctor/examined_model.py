"""The model that the doctor examines: its scores for examples under different conditions.

Shapes: n examples, B of a batch, C answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from vlbench.core.examples import Example, Examples, consensus_of, worths_of
from vlbench.engine.batching.batches import Batches, loader, sequential_blocks
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner

Value = TypeVar("Value")
BATCH = 16
"""Examples per forward pass, unless the check is about batch size."""
CANDIDATES = 8
"""Answers whose likelihoods are the scores of a generative model."""


@dataclass(frozen=True)
class ExaminedModel:
    """A learner on its device. candidates: the answers that are scored, of a generative model."""

    job: Job
    learner: Learner
    device: torch.device
    candidates: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        """Examples per forward pass."""
        return min(BATCH, self.job.spec.eval_batch_size)

    def scores(
        self,
        examples: Examples,
        batch: int | None = None,
        dtype: torch.dtype | None = None,
        beside: Examples = (),
        backwards: bool = False,
    ) -> Tensor:
        """The scores of the examples, [n, C] float32 on the CPU, in the order of the examples.

        The logits of a classifier; the log-likelihoods of the candidates for a generative model; for a model that
        ranks, the scores of the example's own image and of another one (C = 2).

        batch: examples per forward pass. dtype: the precision of the computation; float32 by default. beside: examples
        that are added to each batch and whose scores are dropped. backwards: run from the last example to the first.
        """
        columns = [list(examples), with_other_images(examples)] if self.job.kind.ranks_gallery else [list(examples)]
        if backwards:
            columns = [column[::-1] for column in columns]
        scores = [torch.cat(list(self._run(column, batch or self.batch, dtype, beside))) for column in columns]
        table = torch.cat(scores, dim=1)
        return table.flip(0) if backwards else table

    def _run(self, examples: Examples, batch: int, dtype: torch.dtype | None, beside: Examples) -> Iterator[Tensor]:
        """The scores of one batch after another."""
        rows = [len(examples) + number for number in range(len(beside))]
        blocks = [block + rows for block in sequential_blocks(len(examples), batch)]
        self.learner.eval()
        with torch.inference_mode(), torch.autocast(self.device.type, dtype) if dtype else nullcontext():
            head, model = self.learner.head.choosing(self.candidates), self.learner.model
            for ready in loader(Batches([*examples, *beside], blocks, model, head), 0, self.device):
                scores = head.scores(model, ready.to(self.device))
                yield scores[: len(ready.ids) - len(rows)].float().cpu()

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers that the C scores belong to; for a model that ranks, `own` and `other`."""
        if self.job.kind.ranks_gallery:
            return ("own", "other")
        return self.candidates or self.job.labels

    def accuracy(self, scores: Tensor, examples: Examples) -> float:
        """The percentage of examples whose best score [n, C] is that of a best answer; a tie counts as wrong."""
        best = [self.answers[column] for column in scores.argmax(dim=1).tolist()]
        unique = (scores == scores.amax(dim=1, keepdim=True)).sum(dim=1) == 1
        right = [
            is_unique and (answer == "own" if self.job.kind.ranks_gallery else answer in best_answers(example))
            for answer, is_unique, example in zip(best, unique.tolist(), examples, strict=True)
        ]
        return 100 * float(sum(right)) / len(right)


def with_other_images(examples: Examples) -> list[Example[object]]:
    """The same texts, each with the images of the next example whose images differ; with its own if there is none."""
    others = zip(examples, _next_different([example.query.images for example in examples]), strict=True)
    return [replace(example, query=replace(example.query, images=images)) for example, images in others]


def with_other_texts(examples: Examples) -> list[Example[object]]:
    """The same images, each with the text of the next example whose text differs; with its own if there is none."""
    others = zip(examples, _next_different([example.query.text for example in examples]), strict=True)
    return [replace(example, query=replace(example.query, text=text)) for example, text in others]


def _next_different(values: Sequence[Value]) -> list[Value]:
    """For each value the next different one, cyclically; the value itself if all are equal."""
    others, n = list(values), len(values)
    for position in reversed(range(2 * n)):  # twice around, since the next one of the last values may be at the start
        own, following = position % n, (position + 1) % n
        others[own] = values[following] if values[following] != values[own] else others[following]
    return others


def sample_examples(examples: Examples, wanted: int, seed: int) -> list[Example[object]]:
    """A random sample in the order of the examples, from as many groups as possible; all if there are fewer."""
    rows = random.Random(f"doctor {seed}").sample(range(len(examples)), len(examples))
    first = {examples[row].group: row for row in reversed(rows)}
    leading = set(first.values())
    rows.sort(key=lambda row: row not in leading)  # stable: the first row drawn of each group, then the others
    return [examples[row] for row in sorted(rows[:wanted])]


def choose_candidates(job: Job, examples: Examples) -> tuple[str, ...]:
    """The answers to score of a generative model: the task's labels, else some answers of the examples."""
    if not job.kind.generates:
        return ()
    return (job.labels or tuple(dict.fromkeys(map(consensus_of, examples))))[:CANDIDATES]


def best_answers(example: Example[object]) -> frozenset[str]:
    """The answers with the highest worth."""
    worths = worths_of(example)
    return frozenset(answer for answer, worth in worths.items() if worth == max(worths.values()))
