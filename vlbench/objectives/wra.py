"""Word-region and word-patch alignment (WRA, WPA) by optimal transport (IPOT).

Shapes: B pairs, T text tokens, N regions or patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def transport(
    cost: Tensor, text_mask: Tensor, visual_mask: Tensor, *, beta: float = 0.5, iterations: int = 50
) -> Tensor:
    """Approximate the optimal transport plan between uniform weights on words and regions, without gradient.

    cost [B, T, N]: of each word and region. The masks [B, T] and [B, N] bool are True where a token is real. beta: step
    size of the proximal point method.

    Returns: [B, T, N], 0 or more; rows of real words sum to about 1 / words, columns of real regions to exactly
        1 / regions; 0 for padding.

    Source: Xie et al. 2018 (IPOT), one inner step; Chen et al. 2020 (UNITER), Kim et al. 2021 (ViLT).
    """
    pairs = (text_mask[:, :, None] & visual_mask[:, None, :]).float()
    words, regions = text_mask.sum(dim=1).clamp(min=1), visual_mask.sum(dim=1).clamp(min=1)
    kernel = torch.exp(-cost.detach().float() / beta) * pairs
    from_words, to_regions = text_mask.float() / words[:, None], visual_mask.float() / regions[:, None]
    plan, scale = pairs, to_regions
    for _ in range(iterations):
        weighed = kernel * plan
        over_words = from_words / (weighed @ scale[:, :, None])[:, :, 0].clamp(min=1e-30) * text_mask
        scale = to_regions / (over_words[:, None, :] @ weighed)[:, 0].clamp(min=1e-30) * visual_mask
        plan = over_words[:, :, None] * weighed * scale[:, None, :]
    return plan


def wpa_loss(text: Tensor, visual: Tensor, text_mask: Tensor, visual_mask: Tensor, matched: Tensor) -> Tensor:
    """The transport distances of matched pairs minus those of the others, divided by the number of pairs: a scalar.

    The cost of a word and a region is 1 - cosine; the plan gets no gradient. text [B, T, D], visual [B, N, D], matched
    [B] bool; text_mask [B, T] is False for [CLS], [SEP] and padding, visual_mask [B, N] for a class token and padding.

    Source: Kim et al. 2021 (ViLT), official code, without its weight of 0.1.
    """
    words, parts = (functional.normalize(states.float(), dim=-1, eps=1e-5) for states in (text, visual))
    cosine = words @ parts.transpose(1, 2)
    cost = (1 - cosine) * (text_mask[:, :, None] & visual_mask[:, None, :])
    distances = (cost * transport(cost, text_mask, visual_mask)).sum(dim=(1, 2))
    return torch.where(matched, distances, -distances).sum() / len(distances)
