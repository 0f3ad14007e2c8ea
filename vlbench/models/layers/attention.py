"""Multi-head attention with masks.

Shapes: B rows, T query tokens, S attended tokens, R visual tokens, D width, H heads.
Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors

Projected: TypeAlias = "tuple[Tensor, Tensor, Tensor]"
"""Query, key and value of the same tokens, each [B, H, T, D / H]."""


class Attention(nn.Module):
    """Scaled dot-product attention over H heads with its output projection; no residual and no norm.

    dropout: probability of dropping an attention weight in training mode.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        # Three products, as in official checkpoints: one fused product was not faster on a CPU.
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor, queries: Tensor | None = None) -> Tensor:
        """Attend from queries [B, T, D], by default the states themselves, to states [B, S, D] -> [B, T, D].

        mask [B, 1, 1, S] is True where a token may be attended.
        """
        query = self._split(self.query(states if queries is None else queries))
        return self.attend(query, self._split(self.key(states)), self._split(self.value(states)), mask)

    def project(self, states: Tensor) -> Projected:
        """Query, key and value of states [B, T, D]."""
        return self._split(self.query(states)), self._split(self.key(states)), self._split(self.value(states))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attend from query [B, H, T, D / H] to key and value [B, H, S, D / H] -> [B, T, D].

        mask [B, 1, 1, S] is True where a token may be attended; each row needs at least one True. A mask of S = 0
        attends to all tokens, by kernels that take no mask.
        """
        dropout, given = self.dropout if self.training else 0.0, mask if mask.shape[-1] else None
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=given, dropout_p=dropout)
        gathered: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # [B, H, T, D / H] -> [B, T, D]
        return gathered

    def weights(self, states: Tensor, attended: Tensor, mask: Tensor) -> Tensor:
        """Attention weights [B, T, S] of states [B, T, D] over `attended` [B, S, D], averaged over the heads.

        mask [B, 1, 1, S] is True where a token may be attended; elsewhere the weight is 0. Each row sums to 1. The
        fused product in `attend` does not return weights.
        """
        query, key = self._split(self.query(states)), self._split(self.key(attended))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # [B, H, T, S]
        weights: Tensor = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).mean(dim=1)
        return weights

    def _split(self, states: Tensor) -> Tensor:
        size = states.shape[-1] // self.heads
        return states.view(*states.shape[:2], self.heads, size).transpose(1, 2)  # [B, T, D] -> [B, H, T, D / H]


def weights_over_image(weights: Tensor, mask: Tensor) -> Tensor:
    """Weights [B, S] of the last R tokens, the image's -> [B, R] of sum 1, and 0 where mask [B, R] is False."""
    kept = weights[:, -mask.shape[1] :] * mask
    return kept / kept.sum(dim=1, keepdim=True)


def attention_mask(mask: Tensor) -> Tensor:
    """Reshape a token mask [B, S] to broadcast over heads and query tokens: [B, 1, 1, S]."""
    return mask[:, None, None, :]


def with_keys(prepared: Tensors) -> Tensors:
    """Prepared inputs with `keys`, their mask for attention [N, 0], where no token of their `mask` [N, T] is padding.

    It is decided where batches are prepared, on the host, since looking at a mask on a GPU would wait for the GPU.
    """
    mask = prepared["mask"]
    return {**prepared, "keys": mask[:, :0]} if bool(mask.all()) else prepared


def keys_of(prepared: Tensors) -> Tensor:
    """The mask for attention of prepared inputs, [N, T] or [N, 0]."""
    return prepared.get("keys", prepared["mask"])


def unpadded(states: Tensor) -> tuple[Tensor, Tensor]:
    """States [B, S, D] none of which is padding, and their mask [B, S], all True."""
    return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)


def leading(states: Tensor, count: int | None) -> Tensor:
    """The first `count` tokens of states [B, S, D]; None gives the states themselves: gradients sum in one order."""
    return states if count is None else states[:, :count]


def run_for_first(layers: Iterable[nn.Module], states: Tensor, keys: Tensor) -> Tensor:
    """As `run_layers`, but compute only the first token [B, 1, D] in the last layer, whose `count` is 1."""
    *others, last = layers
    first: Tensor = last(run_layers(others, states, keys), keys, count=1)
    return first


def run_layers(layers: Iterable[nn.Module], states: Tensor, keys: Tensor) -> Tensor:
    """Run layers with self-attention one after the other: states [B, S, D], keys [B, 1, 1, S] -> [B, S, D]."""
    for layer in layers:
        states = layer(states, keys)
    return states


def joined(text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Text [B, T, D] and visual [B, R, D] with masks -> one sequence [B, T + R, D] and its mask [B, 1, 1, T + R].

    A mask of no columns says that no token is padding, also the one of the sequence, [B, 1, 1, 0].
    """
    parts = (text, text_mask), (visual, visual_mask)
    if text_mask.shape[1] or visual_mask.shape[1]:
        masks = [mask if mask.shape[1] else unpadded(states)[1] for states, mask in parts]
    else:
        masks = [text_mask]
    return torch.cat([text, visual], dim=1), attention_mask(torch.cat(masks, dim=1))
