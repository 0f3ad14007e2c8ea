"""Contrast of regions with a queue of past keys (CVLP).

Shapes: Q queries, K keys in the queue, E embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
    own = (queries * keys).sum(dim=-1, keepdim=True)  # [Q, 1]
    others = queries @ queue.detach().T  # [Q, K]
    logits = clip * torch.tanh(torch.cat([own, others], dim=1) / temperature / clip)
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
