"""Masked language modeling (MLM): predict masked tokens.

Shapes: M texts, T text tokens, V vocabulary.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of a token that is not predicted."""
HIDDEN, SWAPPED = 0.8, 0.1
"""The fractions of chosen tokens that become [MASK] and that become a random token; the rest stays unchanged."""


def mask_tokens(
    ids: Tensor,
    special: Tensor,
    rng: Random,
    *,
    vocabulary: range,
    mask_id: int,
    share: float = 0.15,
    whole_words: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose the tokens to predict and mask them.

    special [M, T] bool: True where a token of `ids` [M, T] is never chosen: [CLS], [SEP], padding. vocabulary: the ids
    that a random token is drawn from. share: the probability of choosing each word piece, or each word. whole_words
    [M, T] int64: the number of each piece's word, whose pieces are chosen together; None chooses each on its own.

    Returns: the ids after masking and the labels, both [M, T] int64; a label is the original id or IGNORED.

    Source: Devlin et al. 2019 (80 % masked, 10 % random, 10 % unchanged); Kim et al. 2021 (whole words).
    """
    masked, labels = ids.clone(), torch.full_like(ids, IGNORED)
    for text in range(len(ids)):
        chosen: dict[int, bool] = {}
        for place in range(ids.shape[1]):
            if special[text, place]:
                continue
            word = place if whole_words is None else int(whole_words[text, place])
            if word not in chosen:
                chosen[word] = rng.random() < share
            if chosen[word]:
                labels[text, place] = ids[text, place]
                masked[text, place] = _replacement(int(ids[text, place]), rng, vocabulary, mask_id)
    return masked, labels


def _replacement(token: int, rng: Random, vocabulary: range, mask_id: int) -> int:
    draw = rng.random()
    if draw < HIDDEN:
        return mask_id
    return vocabulary[int(rng.random() * len(vocabulary))] if draw < HIDDEN + SWAPPED else token


def mlm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [M, T, V] and labels [M, T] int64 over the chosen tokens; 0 if none is chosen.

    Source: Devlin et al. 2019.
    """
    chosen = labels != IGNORED
    if not bool(chosen.any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[chosen], labels[chosen])
