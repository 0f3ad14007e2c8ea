"""SOHO: a convolutional network whose cells are looked up in a dictionary, then one transformer over text and cells.

Shapes: N images, M texts, P pairs, H x W pixels, h x w cells of the grid, R = h * w, K entries, T text tokens,
D width. Source: Huang et al. 2021 (arXiv 2104.03135) and its official code; where they differ, an option names both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.layers.attention import joined, run_for_first, run_layers, weights_over_image
from vlbench.models.layers.bert import BertConfig, EncoderLayer, TextEmbeddings, initialize
from vlbench.models.layers.image_sizes import Extent, SideLimits, inside
from vlbench.models.layers.resnet import Layout, ResNet

LAYOUTS = {
    "tiny": Layout((1,), 64, bottleneck=False, large_stem=False),
    "resnet18": Layout((2, 2, 2, 2), 64, bottleneck=False, large_stem=True),
    "resnet101": Layout((3, 4, 23, 3), 64, bottleneck=True, large_stem=True),
}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation of red, green and blue, in [0, 1]."""
SMOOTHING = 1e-5
TEMPERATURE = 10_000.0
"""The base of the wavelengths of the sine positions."""
_EPSILON = 1e-6

Update = Literal["paper", "official"]
Padding: TypeAlias = Literal["exact", "official", "shared"]


class SOHOConfig(BertConfig, SideLimits):
    """The sizes of the architecture; vocab_size comes from the data.

    resnet: the convolutional network. channels: of its stem and first stage. frozen: how many of its stem and
    stages are not trained. pooling: the side of a cell of the transformer in cells of the last map, which are
    max-pooled. token: what represents a cell: `plain`, its entry (the paper); `gated`, a learned mixture of the
    projected entry and the cell (the official code); `added`, their sum (an option of that code); `none`, the cell
    itself, without a dictionary (as in Pixel-BERT). entries: size of the dictionary. update, decay: how entries are
    updated, see Dictionary. lookup: `always`, or in `pretraining` only, as in the official fine-tuning. neck_epsilon:
    of the LayerNorm over tokens and their positions. padding: which cells of a padded canvas are real. `exact`: those
    of the image itself, which nothing outside the image affects. `official`: as `exact`, but real columns are counted
    as in the official code with one image per batch: it takes a canvas to be as wide as it is high, so the last columns
    of an image higher than wide are masked. `shared`: as the official code with the batch at hand, where values from
    the padding reach neighbouring cells, and results depend on the other images in the batch.
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
    layers: int = Field(ge=1)
    width: int = Field(ge=4, multiple_of=4)

    @property
    def layout(self) -> Layout:
        return replace(LAYOUTS[self.resnet], width=self.channels)

    @property
    def step(self) -> int:
        """The convolutional network's stride in pixels; the sides of a canvas are multiples of it."""
        return self.layout.stride

    @property
    def stride(self) -> int:
        """The side of a cell of the transformer in pixels; a canvas has at least one cell."""
        return self.pooling * self.step


class Dictionary(nn.Module):
    """A codebook of K entries of D numbers that follow the cells they represent; no optimizer trains them.

    A cell v is assigned its nearest entry e (Euclidean) and becomes v + stopgradient(e - v): the value of e, the
    gradient of v. In training mode each step assigns cells first and then updates the entries. `paper`: e is the entry
    before the update; `official`: after it. With n_j cells of the batch assigned to entry j, of mean m_j:
    `paper`: e_j <- decay * e_j + (1 - decay) * m_j if n_j > 0; other entries stay.
    `official`: averages of counts c_j <- decay * c_j + (1 - decay) * n_j and of sums s_j likewise of n_j * m_j, both
    starting at 0; e_j <- s_j / c'_j with c'_j = (c_j + 1e-5) / (C + K * 1e-5) * C and C = sum of c. An entry that no
    cell was ever assigned to becomes 0 in the first step.

    entries [K, D]; counts [K] and sums [K, D]: the averages c and s, with `official` only.

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
        """Cells [N, R, D], mask [N, R] bool (True where real) -> tokens [N, R, D], codes [N, R] (entry numbers).

        Cells outside the mask are looked up too, but do not update entries.
        """
        with torch.autocast(cells.device.type, enabled=False):
            exact = cells.detach().float()
            # |v - e|^2 without |v|^2, which is equal for all entries.
            codes = (self.entries.square().sum(dim=1) - 2 * exact @ self.entries.T).argmin(dim=-1)
            nearest = self.entries[codes]  # a copy
            if self.training:
                self._update_entries(exact[mask], codes[mask])
                if self.update == "official":
                    nearest = self.entries[codes]
        return cells + (nearest - exact).to(cells), codes

    @torch.no_grad()
    def _update_entries(self, cells: Tensor, codes: Tensor) -> None:
        """Update from cells [C, D] and the numbers [C] of their entries."""
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
class Cells:
    """The cells of N images before positions are added.

    tokens [N, R, D]. codes [N, R] int64: the numbers of their entries; None without a look-up. mask [N, h, w] bool:
    True where a cell is real.
    """

    tokens: Tensor
    codes: Tensor | None
    mask: Tensor


class Neck(nn.Module):
    """From the convolutional network's map to tokens: pooling, a 1x1 convolution and the dictionary; then positions.

    lookup: whether cells are looked up in the dictionary; pretraining turns it on.
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

    def look(self, maps: Tensor, mask: Tensor) -> Cells:
        """Maps [N, C, pooling * h, pooling * w] or slightly larger, mask [N, h, w] bool -> cells."""
        pooled = functional.max_pool2d(maps, self.pooling)
        cells = self.bn(self.conv(pooled)).flatten(2).transpose(1, 2)  # [N, D, h, w] -> [N, R, D]
        if self.token == "none" or not self.lookup:
            return Cells(cells, None, mask)
        entries, codes = self.dictionary(cells, mask.flatten(1))
        return Cells(self._joined(entries, cells), codes, mask)

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
        """Add positions to tokens [N, R, D], mask [N, h, w] bool -> the transformer's input [N, R, D]."""
        states: Tensor = self.norm(tokens + sine_positions(mask, self.width).to(tokens))
        return states


class SOHONetwork(nn.Module):
    """The whole network. In eval mode row b of each result depends on row b of the input only."""

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
        self.layers = config.encoder_layers(config.layers)
        for part in (self.neck, self.embeddings, self.layers):
            initialize(part, config.initial_std)

    def look(self, pixels: Tensor, sizes: Tensor) -> Cells:
        """Pixels [N, 3, H, W] uint8 and the heights and widths `sizes` [N, 2] int64 of the images in them -> cells.

        H and W are multiples of the step. An image's sides are rounded up to multiples of the step; its cells are the
        whole ones inside, at least one.
        """
        height, width = pixels.shape[-2:]
        sides = self._sides(sizes)
        # A compiled graph has no branch on values; it cuts all maps, in the same kernels as what comes before.
        fills = not torch.compiler.is_compiling() and bool((sides == sides.new_tensor([height, width])).all())
        full = self.padding == "shared" or fills
        normalised = (pixels - self.mean) / self.deviation * inside(sizes, height, width)[:, None]
        maps = self.resnet(normalised, None if full else Extent(sides, height))
        return self.neck.look(maps, self._real(sides, height, width))

    def boxes(self, sizes: Tensor, height: int, width: int) -> Tensor:
        """The boxes [N, R, 4] of the cells of a canvas of `height` x `width`, relative to images of `sizes` [N, 2].

        Left, top, right and bottom in [0, 1]; zeros where a cell is not real.
        """
        columns = width // self.stride
        cells = torch.arange(height // self.stride * columns, device=sizes.device)
        corners = torch.stack([cells % columns, cells // columns] * 2, dim=-1) * self.stride  # [R, 4]
        corners[:, 2:] += self.stride
        boxes = (corners / sizes[:, None, [1, 0, 1, 0]]).clamp(max=1)
        return boxes * self._real(self._sides(sizes), height, width).flatten(1)[:, :, None]

    def _sides(self, sizes: Tensor) -> Tensor:
        """Heights and widths [N, 2], rounded up to multiples of the step, at least one cell."""
        return ((sizes + self.step - 1) // self.step * self.step).clamp(min=self.stride)

    def _real(self, sides: Tensor, height: int, width: int) -> Tensor:
        """The mask [N, h, w] of the cells of a canvas of `height` x `width` inside images of sides [N, 2]."""
        canvas = height // self.stride, width // self.stride
        if self.padding == "exact":
            return inside(sides // self.stride, *canvas)
        if self.padding == "official":
            return inside(official_cells(sides, sides[:, :1], sides // self.stride), *canvas)
        return inside(official_cells(sides, sides.new_tensor([[height]]), sides.new_tensor([canvas])), *canvas)

    def fuse(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Text [P, T, D], visual [P, R, D] and masks [P, T], [P, R] bool -> text, visual, updated. [CLS] is first."""
        states = run_layers(self.layers, *joined(text, text_mask, visual, visual_mask))
        return states[:, : text.shape[1]], states[:, text.shape[1] :]

    def pool(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """The state [P, D] of [CLS] of `fuse` alone, which is all that the last layer computes."""
        return run_for_first(self.layers, *joined(text, text_mask, visual, visual_mask))[:, 0]

    def attend(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """The attention of [CLS] to each cell in the last layer, for the inputs of `fuse`: [P, R], sums of 1."""
        *layers, last = self.layers
        assert isinstance(last, EncoderLayer)
        states, keys = joined(text, text_mask, visual, visual_mask)
        states = run_layers(layers, states, keys)
        return weights_over_image(last.attention.attention.weights(states[:, :1], states, keys)[:, 0], visual_mask)


def official_cells(sides: Tensor, height: Tensor, grid: Tensor) -> Tensor:
    """The rows and columns [N, 2] of cells that the official code takes to be the image's.

    sides [N, 2]: of the images in pixels. height [N or 1, 1]: of their canvas in pixels. grid [N or 1, 2]: rows and
    columns of cells of the canvas. The official code marks the image in a canvas as wide as it is high, and resizes
    that to the grid by nearest neighbours: cell k of n is real if k * height / n is inside the image.
    """
    return torch.minimum((sides * grid + height - 1) // height, grid)


def sine_positions(mask: Tensor, width: int) -> Tensor:
    """Sine position encoding [N, R, D] of the cells of mask [N, h, w] bool: D / 2 numbers for y, then D / 2 for x.

    D is `width`, a multiple of 4; the mask is True where a cell is real. A coordinate counts the real cells up to and
    including this one, divided by their number, times 2 pi. Its even numbers are sin(p / 10000^(2i / (D / 2))), its odd
    ones the cosines.

    Source: Carion et al. 2020 (DETR, arXiv 2005.12872), normalized.
    """
    rows, columns = mask.cumsum(1, dtype=torch.float32), mask.cumsum(2, dtype=torch.float32)
    y = rows / (rows[:, -1:] + _EPSILON)
    x = columns / (columns[:, :, -1:] + _EPSILON)
    powers = torch.arange(0, width // 2, 2, device=mask.device) / (width // 2)
    angles = torch.stack([y, x], dim=-1)[..., None] * (2 * math.pi) / TEMPERATURE**powers  # [N, h, w, 2, D / 4]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1)  # [N, h, w, 2, D / 4, 2]
    return waves.reshape(len(mask), -1, width)
