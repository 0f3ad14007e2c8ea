"""Zero-shot answers of a dual encoder: each label becomes a sentence, and the one nearest to the image wins.

Shapes: B examples, C labels, S distinct sentences of a block, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from vlbench.core.backbone import Model
from vlbench.core.batch import Batch
from vlbench.core.cards import TaskCard
from vlbench.core.examples import Examples
from vlbench.core.record import Prompting
from vlbench.core.results import Prediction
from vlbench.core.task import ids_of
from vlbench.engine.batching.batches import Batches
from vlbench.engine.batching.prediction_shards import Shards
from vlbench.engine.evaluators.base import Evaluator, Kept
from vlbench.engine.evaluators.predict import Work, predict_all
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.heads.dual import DualHead
from vlbench.heads.forward import Forward, embed_pairs, encode_images
from vlbench.heads.labels import check_finite, ranked

_SHOWN = 10
"""Sentences of a prompt in the record."""
Place = tuple[int, int]
"""A row of B and a column of C."""


class ZeroShot(Evaluator):
    """Answers by the label whose sentence is nearest to the image; of a dual encoder not trained on the task."""

    def build_head(self, model: Model) -> DualHead:
        """The temperature of the dot products."""
        return DualHead()

    @property
    def head_labels(self) -> tuple[str, ...]:
        """None: no head is loaded."""
        return ()

    def evaluate(
        self, learner: Learner, examples: Examples, pace: Pace, kept: Kept | None = None
    ) -> tuple[list[Prediction], Timing]:
        """As `compare`."""
        shards = kept.shards(learner, pace.accelerator.device) if kept else None
        return compare(learner, examples, self.job.task.card, self.job.labels, pace, shards)

    def prompting(self, learner: Learner, examples: Examples) -> Prompting | None:
        """The first sentences that the first image is compared with."""
        if not len(examples):
            return None
        first, claims = examples[0], self.job.task.card.claims
        sentences = (claim(claims, first.query.text, label) for label in self.job.labels[:_SHOWN])
        return Prompting(example=first.id, prompt="\n".join(sentences))


def compare(
    learner: Learner,
    examples: Examples,
    card: TaskCard,
    labels: tuple[str, ...],
    pace: Pace,
    shards: Shards | None = None,
) -> tuple[list[Prediction], Timing]:
    """Answer the examples with one of the labels, which the card's `claims` make sentences of; else as `predict_all`.

    The probabilities are the softmax over the labels of the head's logits.

    Raises:
        VlbenchError: a score that is not a finite number, naming the first such example.
    """
    rows = {name: row for row, name in enumerate(ids_of(examples))}

    def answer(batch: Batch) -> list[Prediction]:
        texts = [examples[rows[name]].query.text for name in batch.ids]
        logits = _logits(learner, batch.to(pace.accelerator.device), texts, card, labels, pace)
        check_finite(logits, batch.ids)
        return ranked(logits.softmax(dim=-1), labels, batch.ids)

    work = Work(lambda blocks: Batches(examples, blocks, learner.model, learner.head), answer)
    with learner.evaluating():
        return predict_all(examples, work, pace, shards)


def _logits(
    learner: Learner, batch: Batch, texts: Sequence[str], card: TaskCard, labels: tuple[str, ...], pace: Pace
) -> Tensor:
    """[B, C] float64 on the CPU."""
    forward, head, device = Forward(learner.model, batch), learner.head, pace.accelerator.device
    encode_images(forward)
    visual = forward.visual_pairs()
    logits = torch.empty(len(texts), len(labels), dtype=torch.float64)
    for sentences in _sentences(texts, card, labels, pace.batch_size):
        pace.check()
        prepared = forward.backbone.prepare_texts([*sentences])
        textual = forward.backbone.read({name: value.to(device) for name, value in prepared.items()})
        scores = head(*embed_pairs(learner.model, visual, textual)).double().cpu()  # [B, S]
        columns = torch.tensor([column for column, places in enumerate(sentences.values()) for _ in places])
        rows, answers = torch.tensor([place for places in sentences.values() for place in places]).T
        logits[rows, answers] = scores[rows, columns]
    return logits


def _sentences(
    texts: Sequence[str], card: TaskCard, labels: tuple[str, ...], most: int
) -> Iterator[dict[str, list[Place]]]:
    """The sentences about the images, at most so many at once, each with the places of its scores.

    Label by label: so a sentence about all images is encoded once, and a block of sentences that are each about one
    image covers about as many images as it has sentences.
    """
    block: dict[str, list[Place]] = {}
    for column, label in enumerate(labels):
        for row, text in enumerate(texts):
            sentence = claim(card.claims, text, label)
            if sentence not in block and len(block) == most:
                yield block
                block = {}
            block.setdefault(sentence, []).append((row, column))
    if block:
        yield block


def claim(claims: Mapping[str, str], text: str, label: str) -> str:
    """The sentence that is true of an image if the label answers the example with that text."""
    template = claims.get(label, claims.get("*", "{text} {label}"))
    return template.replace("{label}", label).replace("{text}", text)
