"""Zero-shot answers of a dual encoder: each label becomes a sentence, and the one nearest to the image wins.

Shapes: B examples, C labels, S distinct sentences of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from vlbench.core.backbone import Model
from vlbench.core.batch import Batch
from vlbench.core.cards import TaskCard
from vlbench.core.columns import queries_at
from vlbench.core.examples import Examples
from vlbench.core.record import Prompting
from vlbench.core.results import Prediction
from vlbench.core.task import ids_of
from vlbench.engine.batching.prediction_shards import PredictionShards
from vlbench.engine.evaluators.base import Evaluator, ResultFolders
from vlbench.engine.evaluators.predict import Work, predict_all
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.heads.classify import finite_doubles, ranked
from vlbench.heads.dual import DualHead
from vlbench.heads.forward import Forward, embed_pairs, encode_images

_RECORDED = 10
"""The number of sentences that the record shows as the prompt."""


class ZeroShot(Evaluator):
    """Answers by the label whose sentence is nearest to the image, by a dual encoder not trained on the task."""

    def build_head(self, model: Model) -> DualHead:
        """The temperature of the dot products."""
        return DualHead()

    @property
    def head_labels(self) -> tuple[str, ...]:
        """None: no head is loaded."""
        return ()

    def evaluate(
        self, learner: Learner, examples: Examples, pace: Pace, folders: ResultFolders | None = None
    ) -> tuple[list[Prediction], Timing]:
        """As `compare`."""
        shards = folders.shards(learner, pace.accelerator.device) if folders else None
        return compare(learner, examples, self.job.task.card, self.job.labels, pace, shards)

    def prompting(self, learner: Learner, examples: Examples) -> Prompting | None:
        """The first ten sentences that the first image is compared with."""
        if not len(examples):
            return None
        first, claims = examples[0], self.job.task.card.claims
        sentences = (claim(claims, first.query.text, label) for label in self.job.labels[:_RECORDED])
        return Prompting(example=first.id, prompt="\n".join(sentences))


def compare(
    learner: Learner,
    examples: Examples,
    card: TaskCard,
    labels: tuple[str, ...],
    pace: Pace,
    shards: PredictionShards | None = None,
) -> tuple[list[Prediction], Timing]:
    """Answer the examples by labels, of which the card's `claims` make sentences; the rest as `predict_all`.

    The probabilities are the softmax of the head's logits [B, C] over the labels.

    Raises:
        VlbenchError: a logit is not a finite number, naming the first such example.
    """
    rows = {name: row for row, name in enumerate(ids_of(examples))}

    def answer(batch: Batch) -> list[Prediction]:
        texts = [query.text for query in queries_at(examples, [rows[name] for name in batch.ids])]
        logits = _logits(learner, batch.to(pace.accelerator.device), texts, card, labels, pace)
        return ranked(finite_doubles(logits, batch.ids).softmax(dim=-1), labels, batch.ids)

    work = Work(partial(learner.head.collate, examples, model=learner.model), answer)
    with learner.evaluating():
        return predict_all(examples, work, pace, shards)


def _logits(
    learner: Learner, batch: Batch, texts: Sequence[str], card: TaskCard, labels: tuple[str, ...], pace: Pace
) -> Tensor:
    """The logits [B, C] of a batch, float64 on the CPU."""
    forward, head, device = Forward(learner.model, batch), learner.head, pace.accelerator.device
    encode_images(forward)
    visual = forward.visual_pairs()
    logits = torch.empty(len(texts), len(labels), dtype=torch.float64)
    for sentences in _sentence_blocks(texts, card, labels, pace.batch_size):
        pace.check()
        prepared = forward.backbone.prepare_texts([*sentences])
        textual = forward.backbone.read({name: value.to(device) for name, value in prepared.items()})
        scores = head(*embed_pairs(learner.model, visual, textual)).double().cpu()  # [B, S]
        cells = [(row, column, number) for number, at in enumerate(sentences.values()) for row, column in at]
        rows, columns, numbers = torch.tensor(cells).T
        logits[rows, columns] = scores[rows, numbers]
    return logits


def _sentence_blocks(
    texts: Sequence[str], card: TaskCard, labels: tuple[str, ...], most: int
) -> Iterator[dict[str, list[tuple[int, int]]]]:
    """The sentences, at most so many per block, each with the rows and columns of its logits in [B, C].

    They are ordered by label, so that a sentence about all images is encoded once.
    """
    block: dict[str, list[tuple[int, int]]] = {}
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
