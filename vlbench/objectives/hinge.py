"""Ranking by a margin, with the hardest negative of each query (VSE++)."""

from __future__ import annotations

from torch import Tensor


def hinge_loss(scores: Tensor, right: Tensor, margin: float = 0.2) -> Tensor:
    """The sum of both directions of the mean over queries of max(0, margin - own score + hardest wrong score).

    scores [B, B] of pictures (rows) with texts; right [B, B] bool, which belong together: those of the diagonal do, and
    none of the others marked is a negative. A query without a negative counts 0.

    Source: Faghri et al. 2018, equation 6.
    """
    own = scores.diagonal()
    wrong = scores.masked_fill(right, float("-inf"))
    to_texts = (margin - own + wrong.amax(dim=1)).clamp(min=0)
    to_images = (margin - own + wrong.amax(dim=0)).clamp(min=0)
    return to_texts.mean() + to_images.mean()
