"""Image-text matching: does this text belong to this picture?

Shapes: P pairs, B pairs of a batch.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor
from torch.nn import functional


def mismatch(count: int, rng: Random, share: float = 0.5) -> tuple[list[int], list[bool]]:
    """For each of `count` pairs the row whose text it gets, and whether that is its own.

    share: the chance of each pair to get another one's. A pair alone keeps its own. Source: Tan and Bansal 2019.
    """
    rows, matched = [], []
    for row in range(count):
        other = row + 1 + int(rng.random() * (count - 1)) if count > 1 and rng.random() < share else row
        rows.append(other % count)
        matched.append(other == row)
    return rows, matched


def itm_loss(logits: Tensor, matched: Tensor) -> Tensor:
    """Mean cross-entropy of logits [P, 2], the second for a match, and matched [P] bool."""
    return functional.cross_entropy(logits, matched.to(torch.int64))


def hard_negatives(similarity: Tensor, right: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A wrong text for each picture and a wrong picture for each text, the likelier the more similar: two [B] of rows.

    Args:
        similarity: [B, B] of pictures (rows) with texts, as logits.
        right: [B, B] bool, which texts belong to which pictures: never drawn.
        generator: all chance.

    Raises:
        ValueError: a picture or a text that every other belongs to.

    Source: Li et al. 2021 (ALBEF): drawn by the softmax of the similarities.
    """
    wrong = ~right
    if not bool(wrong.any(dim=1).all() and wrong.any(dim=0).all()):
        raise ValueError("a picture or a text has no wrong partner in the batch: take larger or more varied batches")
    texts = similarity.masked_fill(right, float("-inf")).softmax(dim=1)
    images = similarity.T.masked_fill(right.T, float("-inf")).softmax(dim=1)
    return (
        torch.multinomial(texts, 1, generator=generator)[:, 0],
        torch.multinomial(images, 1, generator=generator)[:, 0],
    )
