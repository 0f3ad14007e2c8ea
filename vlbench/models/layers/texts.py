"""The base class of backbones over word pieces, and the masking of texts for pretraining.

Shapes: M texts, B pairs, T text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Query
from vlbench.core.validate import parse
from vlbench.data.resources import Resources
from vlbench.models.layers.attention import with_keys
from vlbench.models.layers.bert import TransformerConfig
from vlbench.objectives.itm import mismatch
from vlbench.objectives.mlm import mask_tokens


class WordPieceBackbone(nn.Module):
    """A backbone with its configuration and its tokenizer `text`; the base class of all that are trained here.

    title: the model's name. config_type: the class of `config`. pads_texts: whether texts are padded to the tokenizer's
    maximum length, for models that attend to padding, so that no text depends on the others in its batch.

    Raises VlbenchError: texts longer than the network has positions for.
    """

    title: ClassVar[str]
    config_type: ClassVar[type[TransformerConfig]]
    config: TransformerConfig
    pads_texts = False

    def __init__(self, config: TransformerConfig, resources: Resources) -> None:
        super().__init__()
        self.config, self.text, self.width = config, resources.text, config.width
        if self.text.max_length > config.positions:
            raise VlbenchError(
                f"texts of up to {self.text.max_length} tokens do not fit {self.title}'s {config.positions} positions: "
                f"use a tokenizer with a max_length of at most {config.positions}"
            )

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build one of the card's sizes, untrained, for the data of `resources`.

        Raises VlbenchError: a faulty size in the card, or an input that the class rejects.
        """
        values = {**card.sizes[size].config, **cls.sizes_of_data(resources)}
        return cls(parse(cls.config_type, values, f"size {size!r} of model {card.name!r}"), resources)

    @classmethod
    def sizes_of_data(cls, resources: Resources) -> dict[str, int]:
        """The values of `config` that come from the data."""
        return {"vocab_size": resources.text.vocab_size}

    def lower(self, dtype: torch.dtype) -> None:
        """Convert the parameters to `dtype`, in place; batch norms and all buffers stay in float32."""
        for module in self.modules():
            if not isinstance(module, _BatchNorm):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """Tokenize M texts, cut to the longest of them: ids [M, T] int64, mask [M, T] bool, True where one is real.

        Returns: these, and as `with_keys`.
        """
        ids, mask = self.text.encode(texts)
        longest = self.text.max_length if self.pads_texts else int(mask.sum(axis=1).max(initial=0))
        cut = {"ids": ids[:, :longest], "mask": mask[:, :longest]}
        return with_keys({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in cut.items()})


def masked_words(backbone: WordPieceBackbone, words: Tensors, rng: Random, *, whole: bool = False) -> Tensors:
    """Mask 15 % of the word pieces of tokenized texts `words`, or with `whole` 15 % of their words.

    Returns: ids [M, T] int64 after masking; labels [M, T] int64, the original ids of masked tokens (`mask_tokens`).
    """
    text, given = backbone.text, words["ids"]
    special = ~words["mask"] | (given == text.id_of("[CLS]")) | (given == text.id_of("[SEP]"))
    numbers = (~torch.from_numpy(text.continuing))[given].cumsum(dim=1) if whole else None
    ids, labels = mask_tokens(
        given, special, rng, vocabulary=range(text.vocab_size), mask_id=text.id_of("[MASK]"), whole_words=numbers
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
