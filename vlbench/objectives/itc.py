"""Image-text contrast (ITC) of dual encoders, in both directions, and contrast of regions with past keys (CVLP).

Shapes: B pairs, Q regions, K keys in a queue, E embedding width. Vectors have length 1 if nothing else is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Momentum:
    """Embeddings of the momentum encoders, without gradient.

    images, texts [B, E]: of the same pairs as the online encoders'. image_queue, text_queue [K, E]: of earlier steps,
    used as negatives.
    """

    images: Tensor
    texts: Tensor
    image_queue: Tensor | None = None
    text_queue: Tensor | None = None

    def candidates(self) -> tuple[Tensor, Tensor]:
        """All image and all text embeddings [B + K, E], those of the batch first."""
        return _joined(self.images, self.image_queue), _joined(self.texts, self.text_queue)


def itc_loss(
    images: Tensor, texts: Tensor, temperature: Tensor | float, *, momentum: Momentum | None = None, alpha: float = 0.0
) -> Tensor:
    """The mean over both directions of the cross-entropy of cosines / temperature, a scalar.

    images and texts [B, E]: image b matches text b. momentum: the embeddings to contrast with; None contrasts images
    and texts of the batch with each other. alpha: in [0, 1], the weight of momentum distillation: targets are alpha *
    the softmax of the momentum encoders' cosines / temperature + (1 - alpha) * the one-hot target.

    Raises ValueError: alpha without momentum embeddings.

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
    """The target probabilities [B, B + K] of the candidates for each query; candidate b is query b's match."""
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
    """The sum of both directions' InfoNCE losses, a scalar; the positive is the key of the other tower's momentum copy.

    Negatives are the past keys in the queues [K, E], not the other pairs of the batch. Embeddings and keys are [B, E];
    keys and queues get no gradient.

    Source: Huo et al. 2021 (BriVL), official code.
    """
    to_texts = _against_queue(images, text_keys, text_queue, temperature)
    return to_texts + _against_queue(texts, image_keys, image_queue, temperature)


def region_contrast(
    queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float = 0.07, clip: float = 10.0
) -> Tensor:
    """Mean over queries of -log(exp(l_0) / sum_j exp(l_j)), l = clip * tanh(s / temperature / clip), a scalar.

    s_0 is the cosine of a query and its own key, s_j that of the query and the j-th key of the queue. Other regions of
    the batch are not negatives. Keys and queue get no gradient. With an empty queue the loss is 0.

    queries [Q, E]: of any length. keys [Q, E]: the momentum network's for the same regions. queue [K, E]: of length 1.

    Source: Shi et al. 2020 (CVLP), official code.
    """
    queries, keys = functional.normalize(queries, dim=-1), functional.normalize(keys.detach(), dim=-1)
    if not len(queue):
        return queries.sum() * 0.0
    return _cross_entropy_with_first(clip * torch.tanh(_own_and_others(queries, keys, queue) / temperature / clip))


def _against_queue(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    return _cross_entropy_with_first(_own_and_others(queries, keys, queue) / temperature)


def _own_and_others(queries: Tensor, keys: Tensor, queue: Tensor) -> Tensor:
    """The cosines [N, 1 + K] of queries [N, E] with their own keys [N, E] and with the queue [K, E]."""
    return torch.cat([(queries * keys.detach()).sum(dim=-1, keepdim=True), queries @ queue.detach().T], dim=1)


def _cross_entropy_with_first(logits: Tensor) -> Tensor:
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def _joined(batch: Tensor, queue: Tensor | None) -> Tensor:
    return batch.detach() if queue is None else torch.cat([batch, queue]).detach()
