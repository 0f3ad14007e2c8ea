"""Texts as models over word pieces take them, and as they are pretrained on them: words hidden, half of them another's.

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


class Reader(Protocol):
    """A backbone over word pieces."""

    text: TextEncoder

    def prepare_texts(self, texts: Sequence[str]) -> Tensors: ...


def prepared_texts(text: TextEncoder, texts: Sequence[str], *, full: bool = False) -> Tensors:
    """The texts' tokens: ids [M, T] int64, mask [M, T] bool, True where a token is real.

    T is the length of the longest text in this batch; with `full` it is the tokenizer's longest text, for models in
    which padding takes part in the attention, so that no text depends on the others of its batch.
    """
    ids, mask = text.encode(texts)
    longest = text.max_length if full else int(mask.sum(axis=1).max(initial=0))
    return {
        "ids": torch.from_numpy(np.ascontiguousarray(ids[:, :longest])),
        "mask": torch.from_numpy(np.ascontiguousarray(mask[:, :longest])),
    }


def check_length(text: TextEncoder, positions: int, title: str) -> None:
    """Every text must find a position for each of its tokens.

    Raises:
        VlbenchError: the tokenizer's longest text is longer than that.
    """
    if text.max_length > positions:
        raise VlbenchError(
            f"texts of up to {text.max_length} tokens do not fit {title}'s {positions} positions: use a tokenizer with "
            f"a max_length of at most {positions}"
        )


def masked_words(reader: Reader, words: Tensors, rng: Random, *, whole: bool = False) -> Tensors:
    """Prepared texts `words` with 15 % of their word pieces hidden, or with `whole` of their words.

    Returns: ids [M, T] int64 as the model sees them; labels [M, T], what was hidden.
    """
    text, given = reader.text, words["ids"]
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


def masked_texts(reader: Reader, pairs: Sequence[Query], rng: Random) -> Tensors:
    """Each pair's text or, by a chance of one half, another's, with 15 % of its word pieces hidden.

    Returns: ids [B, T] int64 as the model sees them; text_mask [B, T] bool; labels [B, T], what was hidden; text_rows
        [B], whose text a pair has got; matched [B] bool, whether it fits: another's may, if picture or text are equal;
        same_picture [B] bool, whether the text is one of the pair's own picture.
    """
    rows, kept = mismatch(len(pairs), rng)
    matched = [
        own or pairs[row].images == pair.images or pairs[row].text == pair.text
        for pair, row, own in zip(pairs, rows, kept, strict=True)
    ]
    words = reader.prepare_texts([pairs[row].text for row in rows])
    return masked_words(reader, words, rng) | {
        "text_mask": words["mask"],
        "text_rows": torch.tensor(rows),
        "matched": torch.tensor(matched),
        "same_picture": torch.tensor([pairs[row].images == pair.images for pair, row in zip(pairs, rows, strict=True)]),
    }
