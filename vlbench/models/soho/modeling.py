"""SOHO: a convolutional network whose cells are looked up in a dictionary, then one transformer over words and cells.

Shapes: N pictures, M texts, P pairs, H x W pixels, h x w cells of the grid, R = h * w, K entries, T text tokens,
D width. Source: Huang et al. 2021 (arXiv 2104.03135) and its official code; where they differ an option names both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, TypeAlias, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.validate import Frozen
from vlbench.models.layers.attention import attention_mask, over_picture
from vlbench.models.layers.blocks import EncoderLayer
from vlbench.models.layers.config_checks import check_heads, check_sides
from vlbench.models.layers.embeddings import TextEmbeddings
from vlbench.models.layers.image_sizes import Extent, inside
from vlbench.models.layers.initialize import initialize
from vlbench.models.layers.position_encoding import sine_positions
from vlbench.models.layers.resnet import Layout, ResNet

LAYOUTS = {
    "tiny": Layout((1,), 64, bottleneck=False, large_stem=False),
    "resnet18": Layout((2, 2, 2, 2), 64, bottleneck=False, large_stem=True),
    "resnet101": Layout((3, 4, 23, 3), 64, bottleneck=True, large_stem=True),
}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in [0, 1]."""
SMOOTHING = 1e-5

Update = Literal["paper", "official"]
Padding: TypeAlias = Literal["exact", "official", "shared"]


class SOHOConfig(Frozen):
    """The numbers of the architecture; vocab_size comes from the data's side.

    resnet: the convolutional network. channels: of its stem and first stage. frozen: how many of its stem and
    stages are not trained. pooling: cells of its last map along the side of one that the transformer sees,
    max-pooled. token: what stands for a cell: `plain`, its entry (the paper); `gated`, a learned mixture of the
    projected entry and the cell (the official code); `added`, their sum (an option of that code); `none`, the cell
    itself, without a dictionary (Pixel-BERT's shape). entries: of the dictionary. update, decay: how entries move,
    see Dictionary. lookup: `always`, or in `pretraining` only, as the official finetuning has it. neck_epsilon: of
    the LayerNorm over tokens and their positions. padding: which cells of a padded canvas are real. `exact`: those
    of the image's own sides, and nothing of the canvas reaches them. `official`: likewise, but real columns are
    counted as in the official code, which takes a canvas to be as wide as it is high, so that the last columns of a
    image higher than wide are masked; as that code with one image a batch. `shared`: as that code with the
    batch at hand, where values from the padding reach the cells beside it, and results depend on the other images
    of a batch. short_side, long_side: what images are resized to fit, in pixels, keeping their ratio. inner:
    width between the two products of a feed-forward. positions: the longest text. dropout, attention_dropout:
    probabilities. initial_std: of the transformer's weights before training.
    """

    resnet: Literal["tiny", "resnet18", "resnet101"]
    channels: int = Field(default=64, ge=1)
    frozen: int = Field(ge=0)
    pooling: int = Field(ge=1)
    token: Literal["plain", "gated", "added", "none"]
    entries: int = Field(ge=1)
    update: Update
    decay: float = Field(ge=0, lt=1)
    lookup: Literal["always", "pretraining"]
    neck_epsilon: float = Field(default=1e-5, gt=0)
    padding: Padding = "exact"
    short_side: int = Field(ge=1)
    long_side: int = Field(ge=1)
    layers: int = Field(ge=1)
    width: int = Field(ge=4, multiple_of=4)
    heads: int = Field(ge=1)
    inner: int = Field(ge=1)
    positions: int = Field(ge=2)
    dropout: float = Field(ge=0, lt=1)
    attention_dropout: float = Field(ge=0, lt=1)
    initial_std: float = Field(gt=0)
    vocab_size: int = Field(ge=1)

    @model_validator(mode="after")
    def _numbers_agree(self) -> SOHOConfig:
        check_heads(self.width, self.heads)
        check_sides(self.short_side, self.long_side)
        return self

    @property
    def layout(self) -> Layout:
        """Of the convolutional network."""
        return replace(LAYOUTS[self.resnet], width=self.channels)

    @property
    def step(self) -> int:
        """Pixels that the sides of a canvas are multiples of: the convolutional network's stride."""
        return self.layout.stride

    @property
    def stride(self) -> int:
        """Pixels along the side of one cell that the transformer sees; a canvas has at least one."""
        return self.pooling * self.step


class Dictionary(nn.Module):
    """K entries of D numbers that follow the cells they stand for; no optimizer trains them.

    A cell v is given its nearest entry e (Euclidean) and becomes v + stopped(e - v): e going forward, v going back.
    While training, the entries move in each step; which entry a cell is given is decided before. `paper`: e is the
    entry before it moves; `official`: after. With n_j cells of the batch given entry j, of mean m_j:
    `paper`: e_j <- decay * e_j + (1 - decay) * m_j where n_j > 0; other entries stay.
    `official`: averages of counts c_j <- decay * c_j + (1 - decay) * n_j and sums s_j likewise of n_j * m_j, both from
    0; e_j <- s_j / c'_j with c'_j = (c_j + 1e-5) / (C + K * 1e-5) * C and C = sum of c. An entry that no cell was ever
    given becomes 0 in the first step.

    entries [K, D]; counts [K] and sums [K, D]: the averages c and s, with `official` alone.

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
            found = self.entries[codes]  # a copy
            if self.training:
                self._move(exact[mask], codes[mask])
                if self.update == "official":
                    found = self.entries[codes]
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


@dataclass(frozen=True)
class Looked:
    """A picture's cells before they are told where they are.

    tokens [N, R, D]; codes [N, R], the numbers of their entries, none without a lookup; mask [N, h, w], True where a
    cell is real.
    """

    tokens: Tensor
    codes: Tensor | None
    mask: Tensor


class Neck(nn.Module):
    """From the convolutional network's map to tokens: pooling, a 1x1 convolution, the dictionary; then positions.

    lookup: whether cells are looked up in the dictionary; it can be switched.
    """

    def __init__(self, config: SOHOConfig) -> None:
        super().__init__()
        width = config.width
        self.width = width
        self.token = config.token
        self.lookup = config.lookup == "always"
        self.pooling = config.pooling
        self.conv = nn.Conv2d(config.layout.channels, width, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        if config.token != "none":
            self.dictionary = Dictionary(config.entries, width, config.update, config.decay)
        if config.token in ("gated", "added"):
            self.project = nn.Linear(width, width)
        if config.token == "gated":
            self.gate = nn.Conv2d(2 * width, 2, 1, bias=False)
            self.gate_bn = nn.BatchNorm2d(2)
        self.norm = nn.LayerNorm(width, eps=config.neck_epsilon)

    def look(self, maps: Tensor, mask: Tensor) -> Looked:
        """Maps [N, C, 2h, 2w] (or one more), mask [N, h, w] -> their cells."""
        pooled = functional.max_pool2d(maps, self.pooling)
        cells = self.bn(self.conv(pooled)).flatten(2).transpose(1, 2)  # [N, D, h, w] -> [N, R, D]
        if self.token == "none" or not self.lookup:
            return Looked(cells, None, mask)
        entries, codes = self.dictionary(cells, mask.flatten(1))
        return Looked(self._joined(entries, cells), codes, mask)

    def _joined(self, entries: Tensor, cells: Tensor) -> Tensor:
        """Entries and cells [N, R, D] -> tokens [N, R, D]."""
        if self.token == "plain":
            return entries
        entries = self.project(entries)
        if self.token == "added":
            summed: Tensor = entries + cells
            return summed
        both = torch.cat([entries, cells], dim=-1).transpose(1, 2)[..., None]  # [N, R, 2D] -> [N, 2D, R, 1]
        weights: Tensor = self.gate_bn(self.gate(both)).softmax(dim=1)  # [N, 2, R, 1]
        return weights[:, 0] * entries + weights[:, 1] * cells

    def place(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens [N, R, D], mask [N, h, w] -> the transformer's input [N, R, D]."""
        states: Tensor = self.norm(tokens + sine_positions(mask, self.width).to(tokens))
        return states


class SOHONetwork(nn.Module):
    """The whole network. In eval mode row b of each result depends on row b of the input alone."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: SOHOConfig) -> None:
        super().__init__()
        self.step, self.stride = config.step, config.stride
        self.padding = config.padding
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(DEVIATION)[:, None, None], persistent=False)
        self.resnet = ResNet(config.layout, config.frozen)
        self.neck = Neck(config)
        self.embeddings = TextEmbeddings(config.vocab_size, config.positions, config.width, config.dropout)
        sizes = (config.width, config.heads, config.inner, config.dropout, config.attention_dropout)
        self.layers = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config.layers))
        for part in (self.neck, self.embeddings, self.layers):
            initialize(part, config.initial_std)

    def look(self, pixels: Tensor, sizes: Tensor) -> Looked:
        """Pixels [N, 3, H, W] uint8 and the pictures' own heights and widths [N, 2] in them -> their cells.

        H and W are multiples of the step. So are a picture's sides, brought up to the next; its cells are the whole
        ones in that, at least one.
        """
        height, width = pixels.shape[-2:]
        sides = self._sides(sizes)
        full = self.padding == "shared" or bool((sides == sides.new_tensor([height, width])).all())
        maps = self.resnet(self._normalised(pixels, sizes), None if full else Extent(sides, height))
        return self.neck.look(maps, self._real(sides, height, width))

    def boxes(self, sizes: Tensor, height: int, width: int) -> Tensor:
        """Where the cells of a canvas H x W lie in pictures of heights and widths [N, 2] pixels: [N, R, 4].

        Left, top, right and bottom as shares of a picture's width and height; zeros where a cell is not real.
        """
        columns = width // self.stride
        cells = torch.arange(height // self.stride * columns, device=sizes.device)
        corners = torch.stack([cells % columns, cells // columns] * 2, dim=-1) * self.stride  # [R, 4]
        corners[:, 2:] += self.stride
        shares = (corners / sizes[:, None, [1, 0, 1, 0]]).clamp(max=1)
        return shares * self._real(self._sides(sizes), height, width).flatten(1)[:, :, None]

    def _sides(self, sizes: Tensor) -> Tensor:
        """Heights and widths [N, 2], brought up to whole steps, at least one cell."""
        return ((sizes + self.step - 1) // self.step * self.step).clamp(min=self.stride)

    def _real(self, sides: Tensor, height: int, width: int) -> Tensor:
        """Of a canvas H x W, the cells [N, h, w] that are a picture's with these sides [N, 2]."""
        canvas = height // self.stride, width // self.stride
        if self.padding == "exact":
            return inside(sides // self.stride, *canvas)
        if self.padding == "official":
            return inside(official_cells(sides, sides[:, :1], sides // self.stride), *canvas)
        return inside(official_cells(sides, sides.new_tensor([[height]]), sides.new_tensor([canvas])), *canvas)

    def _normalised(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """Zero outside the pictures."""
        return (pixels - self.mean) / self.deviation * inside(sizes, *pixels.shape[-2:])[:, None]

    def read(self, ids: Tensor) -> Tensor:
        """Token ids [M, T] -> states [M, T, D]."""
        states: Tensor = self.embeddings(ids)
        return states

    def fuse(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Text [P, T, D], visual [P, R, D] and masks [P, T], [P, R] -> both, updated. [CLS] is the text's first."""
        states, _ = self._together(len(self.layers), text, text_mask, visual, visual_mask)
        return states[:, : text.shape[1]], states[:, text.shape[1] :]

    def attend(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Of the same inputs, how much [CLS] attends to each cell in the last layer: [P, R], sums of 1."""
        last = len(self.layers) - 1
        states, keys = self._together(last, text, text_mask, visual, visual_mask)
        attention = cast(EncoderLayer, self.layers[last]).attention.attention
        return over_picture(attention.weights(states[:, :1], states, keys)[:, 0], visual_mask)

    def _together(
        self, layers: int, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Words and cells as one row of states after so many layers, and their mask."""
        states = torch.cat([text, visual], dim=1)
        keys = attention_mask(torch.cat([text_mask, visual_mask], dim=1))
        for layer in islice(self.layers, layers):
            states = layer(states, keys)
        return states, keys


def official_cells(sides: Tensor, height: Tensor, grid: Tensor) -> Tensor:
    """Rows and columns [N, 2] of cells that the official code takes to be an image's.

    sides [N, 2]: of the images in pixels; height [N or 1, 1]: of their canvas; grid [N or 1, 2]: rows and columns of
    cells over it. That code marks the image in a canvas as wide as it is high, and brings that down to the grid by
    its nearest pixels: cell k of n is real where k * height / n is inside the image.
    """
    return torch.minimum((sides * grid + height - 1) // height, grid)
