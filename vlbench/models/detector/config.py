"""What the network is made of, and the rules that turn its output into regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STRIDE = 16
"""Pixels along the side of one cell of the map that proposals are made on."""
CELLS = 14
"""Along the side of a pooled region."""
Pooling = Literal["align", "max"]


@dataclass(frozen=True)
class Layout:
    """The network's shape; the defaults are those of Anderson et al. 2018.

    blocks: of res2, res3, res4 and of res5, which looks at regions. width: channels of the stem. rpn_width: of the
    layer that proposals are made from. classes, attributes: known ones, without the background.
    """

    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    width: int = 64
    rpn_width: int = 512
    classes: int = 1600
    attributes: int = 400

    @property
    def map_channels(self) -> int:
        """Of the map that proposals are made on."""
        return 16 * self.width

    @property
    def dim(self) -> int:
        """Numbers that describe a region."""
        return 32 * self.width


@dataclass(frozen=True)
class Rules:
    """From a picture to proposals to regions; the defaults are those of Anderson et al. 2018.

    short_side, long_side: a picture is scaled until its short side has so many pixels, or its long side as many as
    allowed. candidates: the best boxes that the first suppression looks at; proposals: those it leaves at most.
    proposal_overlap, class_overlap: intersection over union above which the lower-scored box goes, in the first
    suppression and in that within each class. smallest: pixels of a proposal's sides. confident: the score from which
    a region is kept in any case, as long as there are no fewer than `least` and no more than `most`. pooling: bilinear
    samples, or the maximum over cells, which the published weights were trained with.
    """

    short_side: int = 600
    long_side: int = 1000
    candidates: int = 6000
    proposals: int = 300
    proposal_overlap: float = 0.7
    smallest: float = 16.0
    class_overlap: float = 0.3
    confident: float = 0.2
    least: int = 36
    most: int = 36
    pooling: Pooling = "align"
