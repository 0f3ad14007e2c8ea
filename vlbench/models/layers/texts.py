"""Tokenized texts for models over word pieces, and their masking for pretraining.

Shapes: M texts, B pairs, T text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

import numpy as np
import torch

from vlbench.core.backbone import Tensors
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Query
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.objectives.itm import mismatch
from vlbench.objectives.mlm import mask_tokens


class WordPieceBackbone(Protocol):
    """A backbone over word pieces. text: its tokenizer."""

    text: TextEncoder

    def prepare_texts(self, texts: Sequence[str]) -> Tensors: ...


def prepared_texts(text: TextEncoder, texts: Sequence[str], *, full: bool = False) -> Tensors:
    """Tokenize texts: ids [M, T] int64, mask [M, T] bool, True where a token is real.

    T is the length of the longest text in this batch. With `full` it is the tokenizer's maximum length, for models that
    attend to padding, so that no text depends on the others in its batch.
    """
    ids, mask = text.encode(texts)
    longest = text.max_length if full else int(mask.sum(axis=1).max(initial=0))
    return {
        "ids": torch.from_numpy(np.ascontiguousarray(ids[:, :longest])),
        "mask": torch.from_numpy(np.ascontiguousarray(mask[:, :longest])),
    }


def check_length(text: TextEncoder, positions: int, title: str) -> None:
    """Check that the model `title` has a position for each token of the longest text.

    Raises:
        VlbenchError: the tokenizer's maximum length is above `positions`.
    """
    if text.max_length > positions:
        raise VlbenchError(
            f"texts of up to {text.max_length} tokens do not fit {title}'s {positions} positions: use a tokenizer with "
            f"a max_length of at most {positions}"
        )


def masked_words(backbone: WordPieceBackbone, words: Tensors, rng: Random, *, whole: bool = False) -> Tensors:
    """Mask 15 % of the word pieces of tokenized texts `words`, or with `whole` 15 % of their words.

    Returns: ids [M, T] int64 after masking; labels [M, T] int64, the original ids of masked tokens (`mask_tokens`).
    """
    text, given = backbone.text, words["ids"]
    special = ~words["mask"] | (given == text.id_of("[CLS]")) | (given == text.id_of("[SEP]"))
    numbers = (~torch.from_numpy(text.continuing))[given].cumsum(dim=1) if whole else None
    ids, labels = mask_tokens(
        given,
        special,
        rng,
        vocabulary=range(text.vocab_size),
        mask_id=text.id_of("[MASK]"),
        whole_words=numbers,
    )
    return {"ids": ids, "labels": labels}


def masked_texts(backbone: WordPieceBackbone, pairs: Sequence[Query], rng: Random) -> Tensors:
    """Prepare MLM and ITM: each pair gets another pair's text with probability 0.5; 15 % of word pieces are masked.

    Returns: ids [B, T] int64 after masking; text_mask [B, T] bool; labels [B, T] int64 as in `mask_tokens`; text_rows
        [B] int64, the row whose text a pair gets; matched [B] bool, whether image and text match: another pair's text
        does if its image or its text is the same; same_image [B] bool, whether the text describes the pair's own image.
    """
    rows, kept = mismatch(len(pairs), rng)
    matched = [
        own or pairs[row].images == pair.images or pairs[row].text == pair.text
        for pair, row, own in zip(pairs, rows, kept, strict=True)
    ]
    words = backbone.prepare_texts([pairs[row].text for row in rows])
    return masked_words(backbone, words, rng) | {
        "text_mask": words["mask"],
        "text_rows": torch.tensor(rows),
        "matched": torch.tensor(matched),
        "same_image": torch.tensor([pairs[row].images == pair.images for pair, row in zip(pairs, rows, strict=True)]),
    }
