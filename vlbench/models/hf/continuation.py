"""Prompts with what comes after them, and how likely that is.

Shapes: B prompts, T tokens of the longest, L of the longest with its continuation, K of the logits kept, V words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from vlbench.core.backbone import Tensors

LABELS = "labels"
"""Among the tensors of continued prompts: the tokens [B, L] of the continuations, and elsewhere IGNORED."""
IGNORED = -100
_SUFFIX = "token_type_ids"
"""Of PaliGemma: 0 on the prompt, which looks at all of itself, and 1 on what comes after it."""


def continued(prompts: Tensors, continuations: Sequence[Sequence[int]], pad: int, suffix: bool) -> Tensors:
    """The tensors of B prompts [B, T, ...], filled up at the left, with their continuations, filled up at the right.

    So every token has the place that it has alone, whatever else is in the batch. Tensors of other shapes stay.

    Args:
        suffix: whether `token_type_ids` tell the prompt from what comes after it.
    """
    ids, real = prompts["input_ids"], prompts["attention_mask"].bool()
    added = [torch.tensor(tokens, dtype=ids.dtype, device=ids.device) for tokens in continuations]
    made: Tensors = {}
    for name, value in prompts.items():
        if value.shape[:2] != ids.shape:
            made[name] = value
            continue
        rows = [value[row][kept] for row, kept in enumerate(real)]  # a token more is like the prompt's last
        last = [row[-1:].expand(len(more), *row.shape[1:]) for row, more in zip(rows, added, strict=True)]
        if name == "input_ids":
            last = added
        elif name == _SUFFIX and suffix:
            last = [torch.ones_like(more) for more in last]
        joined = [torch.cat(parts) for parts in zip(rows, last, strict=True)]
        made[name] = pad_sequence(joined, batch_first=True, padding_value=pad if name == "input_ids" else 0)
    lengths = real.sum(dim=1).tolist()
    labels = [functional.pad(more, (length, 0), value=IGNORED) for length, more in zip(lengths, added, strict=True)]
    made[LABELS] = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
    return made


def kept(labels: Tensor) -> int:
    """How many logits, from the last back, say something of a continuation."""
    first = int((labels != IGNORED).any(dim=0).int().argmax())
    return labels.shape[1] - first + 1


def log_likelihoods(logits: Tensor, labels: Tensor) -> Tensor:
    """Those [B, K - 1] of the last tokens of labels [B, L] by logits [B, K, V]; 0 where a label is none."""
    sought = labels[:, labels.shape[1] - logits.shape[1] + 1 :]
    # In single precision at least: half of it has not the digits for a sum over many words.
    losses = functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), sought, ignore_index=IGNORED, reduction="none"
    )
    return -losses
