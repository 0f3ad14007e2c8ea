"""Hinge losses for ranking: a matching pair must score higher than others by a margin.

Shapes: B pairs, N negatives of each.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Negatives = Literal["hardest", "all"]


def hinge_loss(scores: Tensor, right: Tensor, margin: float = 0.2, *, negatives: Negatives = "hardest") -> Tensor:
    """The sum over queries and both directions of max(0, margin - own score + wrong score), a scalar.

    scores [B, B]: of images (rows) with texts. right [B, B] bool: which pairs match, the diagonal among them; they are
    not negatives. VSE++ itself marks only the diagonal. negatives: `hardest` takes the hardest negative of each query
    (VSE++, "max of hinges"); `all` sums over all (VSE0, "sum of hinges"). A query without a negative counts 0.

    Source: Faghri et al. 2018 (VSE++), equations 5 and 6, and the official code, which sums over the batch.
    """
    own = scores.diagonal()
    violations = (
        (margin - own[:, None] + scores).clamp(min=0).masked_fill(right, 0.0),  # [B, B], of images among texts
        (margin - own[None, :] + scores).clamp(min=0).masked_fill(right, 0.0),  # [B, B], of texts among images
    )
    if negatives == "all":
        return violations[0].sum() + violations[1].sum()
    return violations[0].amax(dim=1).sum() + violations[1].amax(dim=0).sum()


def ranking_loss(right: Tensor, wrong: Tensor, margin: float = 0.2) -> Tensor:
    """The mean over examples and negatives of max(0, margin - s(right) + s(wrong)), a scalar; s is the sigmoid.

    right [B], wrong [B, N]: logits of a cross-encoder.

    Source: Chen et al. 2020 (UNITER), official code for retrieval.
    """
    violations: Tensor = (margin - torch.sigmoid(right)[:, None] + torch.sigmoid(wrong)).clamp(min=0)
    return violations.mean()
