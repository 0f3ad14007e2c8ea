"""Prompts with continuations, and the log-likelihood of these.

Shapes: B prompts, T tokens of the longest, L of the longest with its continuation, K kept logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from vlbench.core.backbone import Tensors

LABELS = "labels"
"""The name of the tensor of labels [B, L]: the tokens of the continuations, and IGNORED elsewhere."""
IGNORED = -100
_SUFFIX = "token_type_ids"
"""PaliGemma's input: 0 on the prompt, which has bidirectional attention, and 1 on the continuation."""


def continued(prompts: Tensors, continuations: Sequence[Sequence[int]], pad: int, suffix: bool) -> Tensors:
    """Append continuations to B prompts; padding moves from the left to the right.

    So each token has the same position as in a batch of its own. prompts: tensors [B, T, ...], padded at the left with
    the token `pad`; others are passed on. suffix: whether `token_type_ids` distinguish prompt and continuation.

    Returns: the tensors [B, L, ...] and LABELS [B, L] int64.
    """
    ids, real = prompts["input_ids"], prompts["attention_mask"].bool()
    added = [torch.tensor(tokens, dtype=ids.dtype, device=ids.device) for tokens in continuations]
    result: Tensors = {}
    for name, value in prompts.items():
        if value.shape[:2] != ids.shape:
            result[name] = value
            continue
        rows = [value[row][kept] for row, kept in enumerate(real)]
        # Added tokens repeat the values of the prompt's last one.
        last = [row[-1:].expand(len(more), *row.shape[1:]) for row, more in zip(rows, added, strict=True)]
        if name == "input_ids":
            last = added
        elif name == _SUFFIX and suffix:
            last = [torch.ones_like(more) for more in last]
        joined = [torch.cat(parts) for parts in zip(rows, last, strict=True)]
        result[name] = pad_sequence(joined, batch_first=True, padding_value=pad if name == "input_ids" else 0)
    lengths = real.sum(dim=1).tolist()
    labels = [functional.pad(more, (length, 0), value=IGNORED) for length, more in zip(lengths, added, strict=True)]
    result[LABELS] = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
    return result


def kept(labels: Tensor) -> int:
    """The number of logits, counted from the end, that predict continuations; labels [B, L]."""
    first = int((labels != IGNORED).any(dim=0).int().argmax())
    return labels.shape[1] - first + 1


def log_likelihoods(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-likelihoods [B, K - 1] of the last tokens of labels [B, L] under logits [B, K, V]; 0 where IGNORED."""
    targets = labels[:, labels.shape[1] - logits.shape[1] + 1 :]
    # At least single precision: half precision lacks the digits for a sum over many tokens.
    logits = logits[:, :-1].float().transpose(1, 2)  # [B, V, K - 1]
    return -functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
