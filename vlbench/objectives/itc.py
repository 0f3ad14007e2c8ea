"""Image-text contrast of two encoders: each image finds its text among others, and each text its image.

Shapes: B pairs, K keys in a queue, E embedding width. All vectors have length 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Momentum:
    """Embeddings of the momentum encoders; none of them gets a gradient.

    images, texts: [B, E], of the same pairs as the online encoders'. image_queue, text_queue: [K, E], those of earlier
    steps, which are negatives; None without a queue.
    """

    images: Tensor
    texts: Tensor
    image_queue: Tensor | None = None
    text_queue: Tensor | None = None

    def candidates(self) -> tuple[Tensor, Tensor]:
        """All images and all texts [B + K, E], those of the batch first."""
        return _joined(self.images, self.image_queue), _joined(self.texts, self.text_queue)


def itc_loss(
    images: Tensor,
    texts: Tensor,
    temperature: Tensor | float,
    *,
    momentum: Momentum | None = None,
    alpha: float = 0.0,
) -> Tensor:
    """The mean of both directions' cross-entropy of the cosines / temperature, a scalar.

    Args:
        images: [B, E], the b-th belongs to the b-th text.
        texts: [B, E].
        temperature: what cosines are divided by.
        momentum: what images and texts are contrasted with; None contrasts them with each other, within the batch.
        alpha: in [0, 1], the weight of momentum distillation: targets are alpha * the softmax of the momentum
            encoders' own cosines / temperature + (1 - alpha) * the one right answer.

    Raises:
        ValueError: alpha without momentum embeddings.

    Source: Radford et al. 2021 (within the batch), Li et al. 2021 (ALBEF: momentum embeddings, queues, distillation)
    and its official code.
    """
    if momentum is None:
        if alpha:
            raise ValueError(f"alpha {alpha} needs momentum embeddings: give them, or alpha 0")
        to_texts, to_images = images @ texts.T / temperature, texts @ images.T / temperature
        own = torch.arange(len(images), device=images.device)
        return (functional.cross_entropy(to_texts, own) + functional.cross_entropy(to_images, own)) / 2
    all_images, all_texts = momentum.candidates()
    losses = [
        functional.cross_entropy(queries @ candidates.T / temperature, _targets(keys, candidates, temperature, alpha))
        for queries, keys, candidates in ((images, momentum.images, all_texts), (texts, momentum.texts, all_images))
    ]
    return (losses[0] + losses[1]) / 2


@torch.no_grad()
def _targets(keys: Tensor, candidates: Tensor, temperature: Tensor | float, alpha: float) -> Tensor:
    """The probabilities [B, B + K] that each query should give the candidates; its own is that of its own row."""
    right = torch.eye(len(keys), len(candidates), dtype=keys.dtype, device=keys.device)
    if not alpha:
        return right
    return alpha * (keys @ candidates.T / temperature).softmax(dim=1) + (1 - alpha) * right


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
    return batch.detach() if queue is None else torch.cat([batch, queue]).detach()
