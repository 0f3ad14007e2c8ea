"""Masked visual modeling (MVM, SOHO): predict the dictionary entries of masked cells.

Shapes: N images, C cells of the grid, P masked cells, K entries.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor
from torch.nn import functional


def mask_cells(codes: Tensor, mask: Tensor, rng: Random, share: float) -> Tensor:
    """Draw the cells to mask: in each image, all real cells with the same entry as one that is drawn at random.

    codes [N, C] int64: the entry of each cell. mask [N, C] bool: True where a cell is real; padding is never masked.
    share: the probability that an image has cells masked. Returns [N, C] bool, True for masked cells.

    Source: Huang et al. 2021 (SOHO). The official code draws one cell for a whole batch.
    """
    hidden = torch.zeros_like(mask)
    for image in range(len(codes)):
        real = mask[image].nonzero()[:, 0].tolist()
        if real and rng.random() < share:
            code = codes[image, real[int(rng.random() * len(real))]]
            hidden[image] = mask[image] & (codes[image] == code)
    return hidden


def mvm_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean cross-entropy of masked cells' logits [P, K] and entries `codes` [P] int64, a scalar; 0 if there are none.

    Source: Huang et al. 2021 (SOHO).
    """
    return functional.cross_entropy(logits, codes) if len(codes) else logits.sum() * 0.0
