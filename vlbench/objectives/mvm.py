"""Masked visual modelling (SOHO): guess the dictionary entry of hidden cells.

Shapes: N pictures, C cells of the grid, P hidden cells, K entries.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor
from torch.nn import functional


def mask_cells(codes: Tensor, mask: Tensor, rng: Random, share: float) -> Tensor:
    """Which cells are hidden [N, C] bool: of a picture, all real cells that share the entry of one drawn at random.

    Args:
        codes: [N, C] int64, the entry of each cell.
        mask: [N, C] bool, True where a cell is real; padding is never hidden.
        rng: all chance.
        share: the chance of each picture to have anything hidden.

    Source: Huang et al. 2021 (SOHO). The official code draws one cell for a whole batch; here each picture has its own.
    """
    hidden = torch.zeros_like(mask)
    for picture in range(len(codes)):
        real = mask[picture].nonzero()[:, 0].tolist()
        if real and rng.random() < share:
            code = codes[picture, real[int(rng.random() * len(real))]]
            hidden[picture] = mask[picture] & (codes[picture] == code)
    return hidden


def mvm_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean cross-entropy of hidden cells' logits [P, K] and entries [P]; 0 where none was hidden."""
    return functional.cross_entropy(logits, codes) if len(codes) else logits.sum() * 0.0
