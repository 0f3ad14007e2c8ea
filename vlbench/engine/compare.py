"""Zero-shot answers of a model that embeds: each answer becomes a sentence, and the one nearest to the picture wins.

Shapes: B examples, C answers, S distinct sentences, E embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from vlbench.core.backbone import Tensors
from vlbench.core.cards import TaskCard
from vlbench.core.examples import Example, ImageRef
from vlbench.core.results import Prediction
from vlbench.engine.batches import sequential_blocks
from vlbench.engine.capabilities import claim
from vlbench.engine.learner import Learner, embed
from vlbench.engine.pace import Pace, Timing
from vlbench.heads.dual import DualHead
from vlbench.heads.labels import check_finite, ranked


def compare(
    learner: Learner, examples: Sequence[Example[Any]], card: TaskCard, labels: tuple[str, ...], pace: Pace
) -> tuple[list[Prediction], Timing]:
    """Answer the examples in their order with one of the labels; the card's `claims` make sentences of them.

    The probabilities are the softmax over the labels of the head's logits.

    Raises:
        VlbenchError: a score that is not a finite number, naming the first such example.
        Interrupted: asked to stop.
    """
    timing, predictions = Timing(), list[Prediction]()
    learner.eval()
    with torch.inference_mode(), pace.accelerator.autocast():
        for rows in sequential_blocks(len(examples), pace.batch_size):
            pace.interrupt.check()
            started = time.perf_counter()
            block = [examples[row] for row in rows]
            logits = _logits(learner, block, [_sentences(one, card, labels) for one in block], pace)
            ids = [example.id for example in block]
            check_finite(logits, ids)
            predictions += ranked(logits.softmax(dim=-1), labels, ids)
            timing.batches.append(time.perf_counter() - started)
            timing.examples += len(block)
            pace.step(timing.examples, len(examples))
    return predictions, timing


def _sentences(example: Example[Any], card: TaskCard, labels: tuple[str, ...]) -> list[str]:
    return [claim(card.claims, example.query.text, label) for label in labels]


def _logits(learner: Learner, block: Sequence[Example[Any]], asked: Sequence[Sequence[str]], pace: Pace) -> Tensor:
    """[B, C] float64 on the CPU."""
    backbone, head = learner.parts
    refs: dict[str, ImageRef] = {}
    places: dict[str, int] = {}
    for example, sentences in zip(block, asked, strict=True):
        refs.setdefault(example.query.images[0].key, example.query.images[0])
        for sentence in sentences:
            places.setdefault(sentence, len(places))
    images = _on_device(backbone.prepare_images([*refs.values()]), pace)
    first = next(iter(images.values()))
    seen = backbone.see(images, torch.zeros(len(first), dtype=torch.int64, device=first.device))
    scores = []
    for rows in sequential_blocks(len(places), pace.batch_size):
        texts = backbone.prepare_texts([[*places][row] for row in rows])
        images_and_texts = embed(backbone, seen, backbone.read(_on_device(texts, pace)))
        scores.append(cast(DualHead, head)(*images_and_texts).double().cpu())
    every = torch.cat(scores, dim=1)  # [pictures, S]
    rows_of = {key: row for row, key in enumerate(refs)}
    chosen = torch.tensor([[places[sentence] for sentence in sentences] for sentences in asked])
    pictures = torch.tensor([rows_of[example.query.images[0].key] for example in block])
    return every[pictures[:, None], chosen]


def _on_device(tensors: Tensors, pace: Pace) -> Tensors:
    return {name: value.to(pace.accelerator.device) for name, value in tensors.items()}
