"""Image-text contrast of two towers: each picture finds its text among others, and each text its picture.

Shapes: B pairs, K keys in a queue, E embedding width. All vectors have length 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def itc_loss(
    images: Tensor,
    texts: Tensor,
    temperature: Tensor | float,
    *,
    image_queue: Tensor | None = None,
    text_queue: Tensor | None = None,
    soft: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The mean of both directions' cross-entropy of the cosines / temperature, a scalar.

    Args:
        images: [B, E], the b-th belongs to the b-th text.
        texts: [B, E].
        temperature: what cosines are divided by.
        image_queue: [K, E] more negatives for texts, without gradient.
        text_queue: [K, E] more negatives for pictures, without gradient.
        soft: momentum distillation: the probabilities [B, B + K] that pictures give texts and texts give pictures, in
            place of the one right answer.

    Source: Radford et al. 2021 (in the batch), Li et al. 2021 (queues, distillation).
    """
    to_texts = images @ _joined(texts, text_queue).T / temperature
    to_images = texts @ _joined(images, image_queue).T / temperature
    if soft is not None:
        return (functional.cross_entropy(to_texts, soft[0]) + functional.cross_entropy(to_images, soft[1])) / 2
    own = torch.arange(len(images), device=images.device)
    return (functional.cross_entropy(to_texts, own) + functional.cross_entropy(to_images, own)) / 2


def two_queue_loss(
    images: Tensor,
    texts: Tensor,
    image_keys: Tensor,
    text_keys: Tensor,
    image_queue: Tensor,
    text_queue: Tensor,
    temperature: float,
) -> Tensor:
    """The sum of both directions' InfoNCE; the right answer is the key of the other tower's momentum copy.

    Other pairs of the batch are no negatives, those in the queues [K, E] are. Keys [B, E] and queues get no gradient.

    Source: Huo et al. 2021 (BriVL), official code.
    """
    return _against_queue(images, text_keys, text_queue, temperature) + _against_queue(
        texts, image_keys, image_queue, temperature
    )


def _against_queue(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    own = (queries * keys.detach()).sum(dim=-1, keepdim=True)
    logits = torch.cat([own, queries @ queue.detach().T], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def _joined(batch: Tensor, queue: Tensor | None) -> Tensor:
    return batch if queue is None else torch.cat([batch, queue.detach()])
