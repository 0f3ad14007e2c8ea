"""SOHO's visual dictionary, in which cells of a picture are looked up.

Shapes: N pictures, R cells of each, K entries, C cells of a batch, D width. Source: Huang et al. 2021 (arXiv
2104.03135) and its official code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

SMOOTHING = 1e-5

Update = Literal["paper", "official"]


class Dictionary(nn.Module):
    """K entries of D numbers that follow the cells they stand for; no optimizer trains them.

    A cell v is given its nearest entry e (Euclidean) and becomes v + stopped(e - v): e going forward, v going back.
    While training, the entries then move. With n_j cells of the batch given entry j, of mean m_j:
    `paper`: e_j <- decay * e_j + (1 - decay) * m_j where n_j > 0; other entries stay.
    `official`: averages of counts c_j <- decay * c_j + (1 - decay) * n_j and sums s_j likewise of n_j * m_j, both from
    0; e_j <- s_j / c'_j with c'_j = (c_j + 1e-5) / (C + K * 1e-5) * C and C = sum of c. An entry that no cell was ever
    given becomes 0 in the first step.

    Source: Huang et al. 2021, equations 2 to 4; van den Oord et al. 2017.
    """

    entries: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, width: int, update: Update, decay: float) -> None:
        super().__init__()
        self.update: Update = update
        self.decay = decay
        self.register_buffer("entries", torch.randn(size, width))
        if update == "official":
            self.register_buffer("counts", torch.zeros(size))
            self.register_buffer("sums", torch.zeros(size, width))

    def forward(self, cells: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cells [N, R, D], mask [N, R] (True where real) -> tokens [N, R, D] and the numbers [N, R] of their entries.

        Cells outside the mask are looked up too, but move nothing.
        """
        with torch.autocast(cells.device.type, enabled=False):
            exact = cells.detach().float()
            codes = self._nearest(exact)
            found = self.entries[codes]
            if self.training:
                self._move(exact[mask], codes[mask])
        return cells + (found - exact).to(cells), codes

    def _nearest(self, cells: Tensor) -> Tensor:
        # |v - e|^2 without |v|^2, which is the same for all entries.
        return (self.entries.square().sum(dim=1) - 2 * cells @ self.entries.T).argmin(dim=-1)

    @torch.no_grad()
    def _move(self, cells: Tensor, codes: Tensor) -> None:
        """Cells [C, D] and the numbers [C] of their entries."""
        counts = torch.bincount(codes, minlength=len(self.entries)).to(self.entries)
        sums = torch.zeros_like(self.entries).index_add_(0, codes, cells)
        if self.update == "paper":
            used = counts > 0
            self.entries[used] = self.entries[used].lerp(sums[used] / counts[used, None], 1 - self.decay)
            return
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + SMOOTHING) / (total + len(counts) * SMOOTHING) * total
        self.entries.copy_(self.sums / smoothed[:, None])
