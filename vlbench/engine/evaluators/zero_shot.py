"""Zero-shot answers of a model that embeds: each answer becomes a sentence, and the one nearest to the picture wins.

Shapes: B examples, C answers, S distinct sentences of a block, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from vlbench.core.cards import TaskCard
from vlbench.core.examples import Example
from vlbench.core.results import Prediction
from vlbench.core.task import ids_of
from vlbench.engine.batching.batches import Batch
from vlbench.engine.batching.prediction_shards import Shards
from vlbench.engine.batching.prompts import PromptBatch
from vlbench.engine.capabilities import claim
from vlbench.engine.evaluators.learner import Learner, embed
from vlbench.engine.evaluators.predict import Work, answer_all
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.heads.dual import DualHead
from vlbench.heads.labels import check_finite, ranked

Place = tuple[int, int]
"""A row of B and a column of C."""


def compare(
    learner: Learner,
    examples: Sequence[Example[Any]],
    card: TaskCard,
    labels: tuple[str, ...],
    pace: Pace,
    shards: Shards | None = None,
) -> tuple[list[Prediction], Timing]:
    """Answer the examples with one of the labels; the card's `claims` make sentences of them. The rest as `answer_all`.

    The probabilities are the softmax over the labels of the head's logits.

    Raises:
        VlbenchError: a score that is not a finite number, naming the first such example.
    """
    rows = {name: row for row, name in enumerate(ids_of(examples))}

    def answer(batch: Batch | PromptBatch) -> list[Prediction]:
        texts = [examples[rows[name]].query.text for name in batch.ids]
        logits = _logits(learner, cast(Batch, batch.to(pace.accelerator.device)), texts, card, labels, pace)
        check_finite(logits, batch.ids)
        return ranked(logits.softmax(dim=-1), labels, batch.ids)

    work = Work(lambda blocks: learner.batches(examples, blocks), answer)
    return answer_all(learner, examples, work, pace, shards)


def _logits(
    learner: Learner, batch: Batch, texts: Sequence[str], card: TaskCard, labels: tuple[str, ...], pace: Pace
) -> Tensor:
    """[B, C] float64 on the CPU."""
    backbone, head = learner.parts
    seen = backbone.see(batch.images, batch.slots).take(batch.image_rows)
    logits = torch.empty(len(texts), len(labels), dtype=torch.float64)
    for asked in _sentences(texts, card, labels, pace.batch_size):
        pace.check()
        words = {name: value.to(batch.slots.device) for name, value in backbone.prepare_texts([*asked]).items()}
        scores = cast(DualHead, head)(*embed(backbone, seen, backbone.read(words))).double().cpu()  # [B, S]
        columns = torch.tensor([column for column, places in enumerate(asked.values()) for _ in places])
        rows, answers = torch.tensor([place for places in asked.values() for place in places]).T
        logits[rows, answers] = scores[rows, columns]
    return logits


def _sentences(
    texts: Sequence[str], card: TaskCard, labels: tuple[str, ...], most: int
) -> Iterator[dict[str, list[Place]]]:
    """What is said of the pictures, at most so many sentences at once, each with the places of its scores.

    Answer by answer: so a sentence that is said of all pictures is read once, and in a block of sentences that are
    each said of one there are about as many pictures as sentences.
    """
    asked: dict[str, list[Place]] = {}
    for column, label in enumerate(labels):
        for row, text in enumerate(texts):
            sentence = claim(card.claims, text, label)
            if sentence not in asked and len(asked) == most:
                yield asked
                asked = {}
            asked.setdefault(sentence, []).append((row, column))
    if asked:
        yield asked
