"""The detector's sizes, and the rules that turn its output into regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STRIDE = 16
"""The side in pixels of a cell of the map that proposals are made on."""
CELLS = 14
"""The side of a pooled region in cells."""
Pooling = Literal["align", "max"]


@dataclass(frozen=True)
class Layout:
    """The network's sizes; the defaults are those of Anderson et al. 2018.

    blocks: number of blocks of res2, res3, res4 and res5, which runs over regions. width: channels of the stem.
    rpn_width: channels of the proposal network's layer. classes, attributes: their numbers, without the background.
    """

    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    width: int = 64
    rpn_width: int = 512
    classes: int = 1600
    attributes: int = 400

    @property
    def map_channels(self) -> int:
        """The channels of the map that proposals are made on."""
        return 16 * self.width

    @property
    def dim(self) -> int:
        """The width of a region's features."""
        return 32 * self.width


@dataclass(frozen=True)
class Rules:
    """The rules from an image to proposals to regions; the defaults are those of Anderson et al. 2018.

    short_side, long_side: an image is scaled to this short side, or to this long side if that gives a smaller image.
    candidates: the number of best boxes given to the first suppression. proposals: the most boxes that it keeps.
    proposal_overlap, class_overlap: intersection over union above which the lower-scored box is dropped, in the first
    suppression and in the one inside each class. smallest: the least side of a proposal in pixels. confident: regions
    of at least this score are kept, but no fewer than `least` and no more than `most` regions. pooling: `align` takes
    bilinear samples; `max` takes the maximum over cells, which the published weights were trained with.
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
