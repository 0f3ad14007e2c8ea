"""Masked language modelling: guess the words that were hidden.

Shapes: M texts, T tokens, V words of the vocabulary.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of a token that was not chosen."""
HIDDEN, SWAPPED = 0.8, 0.1
"""Of the chosen tokens, the share that becomes [MASK] and the share that becomes any word; the rest stays."""


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
    """Choose tokens and hide them: the ids as the model sees them, and the labels, both [M, T].

    Args:
        ids: [M, T] int64.
        special: [M, T] bool, True where a token is never chosen: [CLS], [SEP], padding.
        rng: all chance.
        vocabulary: the ids that a swapped token is drawn from.
        mask_id: of [MASK].
        share: the chance of each word piece, or of each word, to be chosen.
        whole_words: [M, T] int64, the number of the word that a piece belongs to, for whole-word masking: the pieces of
            a word are chosen together. None chooses pieces one by one.

    Source: Devlin et al. 2019 (80 % hidden, 10 % swapped, 10 % kept); Kim et al. 2021 (whole words).
    """
    seen, labels = ids.clone(), torch.full_like(ids, IGNORED)
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
                seen[text, place] = _instead(int(ids[text, place]), rng, vocabulary, mask_id)
    return seen, labels


def _instead(token: int, rng: Random, vocabulary: range, mask_id: int) -> int:
    chance = rng.random()
    if chance < HIDDEN:
        return mask_id
    return vocabulary[int(rng.random() * len(vocabulary))] if chance < HIDDEN + SWAPPED else token


def mlm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the chosen tokens of logits [M, T, V] and labels [M, T]; 0 where none was chosen."""
    chosen = labels != IGNORED
    if not bool(chosen.any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[chosen], labels[chosen])
