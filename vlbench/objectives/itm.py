"""Image-text matching (ITM): classify whether a text matches an image.

Shapes: P pairs, B pairs of a batch.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor
from torch.nn import functional


def mismatch(count: int, rng: Random, share: float = 0.5) -> tuple[list[int], list[bool]]:
    """Draw for each of `count` pairs the row whose text it gets; return the rows and whether each is the pair's own.

    share: the probability of another pair's text; a single pair keeps its own. Source: Tan and Bansal 2019.
    """
    rows, matched = [], []
    for row in range(count):
        other = row + 1 + int(rng.random() * (count - 1)) if count > 1 and rng.random() < share else row
        rows.append(other % count)
        matched.append(other == row)
    return rows, matched


def itm_loss(logits: Tensor, matched: Tensor) -> Tensor:
    """Mean cross-entropy of logits [P, 2], the second for a match, and labels [P] bool. Source: Tan and Bansal 2019."""
    return functional.cross_entropy(logits, matched.to(torch.int64))


def hard_negatives(similarity: Tensor, right: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample a hard negative text for each image and a hard negative image for each text, by softmax of the similarity.

    similarity [B, B]: of images (rows) with texts, as logits. right [B, B] bool: True for matching pairs, which are
    never drawn. Returns the rows of the texts [B] int64 and of the images [B] int64.

    Raises ValueError: an image or a text matches all others in the batch.

    Source: Li et al. 2021 (ALBEF).
    """
    wrong = ~right
    if not bool(wrong.any(dim=1).all() and wrong.any(dim=0).all()):
        raise ValueError("an image or a text has no negative in the batch: take larger or more varied batches")
    texts = similarity.masked_fill(right, float("-inf")).softmax(dim=1)
    images = similarity.T.masked_fill(right.T, float("-inf")).softmax(dim=1)
    return (
        torch.multinomial(texts, 1, generator=generator)[:, 0],
        torch.multinomial(images, 1, generator=generator)[:, 0],
    )
