"""Where a cell of a grid is, as sines.

Shapes: N pictures, h x w cells, R = h * w, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000.0
_EPSILON = 1e-6


def sine_positions(mask: Tensor, width: int) -> Tensor:
    """The positions [N, R, D] of the cells of mask [N, h, w] (True where a cell is real): D / 2 numbers for y, then x.

    A coordinate counts the real cells up to and with this one, as a share of the picture's side, times 2 pi. Of its
    numbers the even ones are sin(p / 10000^(2i / (D / 2))), the odd ones the cosines. width is a multiple of 4.

    Source: Carion et al. 2020 (DETR, arXiv 2005.12872), normalised.
    """
    rows, columns = mask.cumsum(1, dtype=torch.float32), mask.cumsum(2, dtype=torch.float32)
    y = rows / (rows[:, -1:] + _EPSILON)
    x = columns / (columns[:, :, -1:] + _EPSILON)
    powers = torch.arange(0, width // 2, 2, device=mask.device) / (width // 2)
    angles = torch.stack([y, x], dim=-1)[..., None] * (2 * math.pi) / TEMPERATURE**powers  # [N, h, w, 2, D / 4]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1)  # [N, h, w, 2, D / 4, 2]
    return waves.reshape(len(mask), -1, width)
