"""ViLT: a linear projection of patches, text embeddings, and one pre-norm transformer over both.

Shapes: N images, M texts, B pairs, R patches, P pixels along a patch's side, G places along the side of the position
table, T text tokens, S = T + 1 + R tokens of a pair, D width.
Source: Kim et al. 2021 (arXiv 2102.03334) and its official code.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.layers.attention import Attention, joined, leading, run_for_first, run_layers, weights_over_image
from vlbench.models.layers.bert import Pooler, TextEmbeddings, TransformerConfig, initialize
from vlbench.models.layers.image_sizes import SideLimits

EPSILON = 1e-6
"""The epsilon of the blocks' LayerNorms, as in the ViT that ViLT is initialized from."""
TEXT, IMAGE, SECOND_IMAGE = 0, 1, 2
"""Rows of the table of modality types; the last one is for the second image of NLVR2."""
CHANNELS = 3
GREY = 127.5
"""The pixel value that is normalized to 0; black becomes -1 and white 1."""


class ViLTConfig(TransformerConfig, SideLimits):
    """The sizes of the architecture; vocab_size comes from the data.

    patch: the side of a patch in pixels. grid: places along the side of the position table. centre: whether a network
    trained from scratch subtracts each image's mean colour from its pixels (`centred`).
    """

    patch: int = Field(ge=1)
    grid: int = Field(ge=1)
    layers: int = Field(ge=1)
    centre: bool = False

    @property
    def pixels(self) -> int:
        """The numbers in a patch."""
        return CHANNELS * self.patch * self.patch


class Block(nn.Module):
    """A pre-norm layer: x + attention(norm(x)), then x + feed_forward(norm(x)). Source: Dosovitskiy et al. 2021."""

    def __init__(self, config: ViLTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=EPSILON)
        self.attention = Attention(config.width, config.heads, 0.0)
        self.norm2 = nn.LayerNorm(config.width, eps=EPSILON)
        self.inner = nn.Linear(config.width, config.inner)
        self.outer = nn.Linear(config.inner, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
        """States [B, S, D], mask [B, 1, 1, S] -> [B, S, D], or the first `count` of S."""
        normed = self.norm1(states)
        attended = self.attention(normed, mask, leading(normed, count))
        states = leading(states, count) + self.dropout(attended)
        inner = self.dropout(functional.gelu(self.inner(self.norm2(states))))
        updated: Tensor = states + self.dropout(self.outer(inner))
        return updated


def _mean_colour(scaled: Tensor, mask: Tensor) -> Tensor:
    """The mean of each channel over real patches: [N, R, 3 * P * P], mask [N, R] -> [N, 1, 3 * P * P]."""
    real = mask[:, :, None].to(scaled)
    images, patches, numbers = scaled.shape
    channels = scaled.view(images, patches, CHANNELS, numbers // CHANNELS)
    colour = (channels.mean(dim=3) * real).sum(dim=1) / real.sum(dim=1)  # [N, 3]
    spread: Tensor = colour.repeat_interleave(numbers // CHANNELS, dim=1)[:, None]
    return spread


class ViLTNetwork(nn.Module):
    """The whole network. Row b of each result depends on row b of the input only.

    centred: 1 if each image's mean colour is subtracted from its pixels, 0 if not; None in sizes that never do so. It
    is a buffer because weights are trained for the one or the other.
    """

    centred: Tensor | None

    def __init__(self, config: ViLTConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.register_buffer("centred", torch.zeros(()) if config.centre else None)
        self.projection = nn.Linear(config.pixels, config.width)
        self.class_token = nn.Parameter(torch.zeros(config.width))
        self.class_position = nn.Parameter(torch.zeros(config.width))
        self.positions = nn.Embedding(config.grid**2, config.width)
        self.text = TextEmbeddings(config.vocab_size, config.positions, config.width, config.dropout)
        self.types = nn.Embedding(3, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.pooler = Pooler(config.width)
        self.dropout = nn.Dropout(config.dropout)
        initialize(self, config.initial_std)
        for parameter in (self.class_token, self.class_position):
            nn.init.normal_(parameter, std=config.initial_std)
        self.type_second_image()

    @torch.no_grad()
    def type_second_image(self) -> None:
        """Copy the first image's type to the second image's, as the official code does before fine-tuning."""
        self.types.weight[SECOND_IMAGE] = self.types.weight[IMAGE]

    def project(self, patches: Tensor, mask: Tensor) -> Tensor:
        """Patches [N, R, 3 * P * P] uint8, mask [N, R] bool of real ones -> projected patches [N, R, D]."""
        scaled = (patches.to(self.projection.weight.dtype) - GREY) / GREY
        if self.centred is not None:
            scaled = scaled - self.centred * _mean_colour(scaled, mask)
        projected: Tensor = self.projection(scaled)
        return projected

    def place(self, projected: Tensor, places: Tensor, grids: Tensor, kinds: Tensor) -> Tensor:
        """Add positions and modality types to projected patches [N, R, D]: [N, 1 + R, D], the class token first.

        places [N, R] int64 of the patches are counted row by row; grids [N, 2] int64 are the rows and columns of each
        image's patches; kinds [N] int64 are 0 for the first image of an example, and more for the second.
        """
        placed = projected + self._positions(places, grids)
        first = (self.class_token + self.class_position).expand(len(projected), 1, -1)
        kind = self.types(IMAGE + kinds.clamp(max=1))[:, None]
        states: Tensor = self.dropout(torch.cat([first, placed], dim=1)) + kind
        return states

    def _positions(self, places: Tensor, grids: Tensor) -> Tensor:
        """The position table, resized to each image's grid: bilinear with aligned corners: [N, R, D]."""
        rows, columns = grids[:, :1], grids[:, 1:]
        low_y, high_y, share_y = self._between(places // columns, rows)
        low_x, high_x, share_x = self._between(places % columns, columns)
        corners = torch.stack([y * self.grid + x for y in (low_y, high_y) for x in (low_x, high_x)], dim=-1)
        weights = torch.stack([y * x for y in (1 - share_y, share_y) for x in (1 - share_x, share_x)], dim=-1)
        table = self.positions.weight
        mixed: Tensor = functional.embedding_bag(
            corners.flatten(0, 1), table, mode="sum", per_sample_weights=weights.flatten(0, 1).to(table)
        )
        return mixed.view(len(places), places.shape[1], table.shape[1])

    def _between(self, places: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For places [N, R] of `counts` [N, 1] along a side: the two nearest entries, and the second one's weight."""
        exact = places * ((self.grid - 1) / (counts - 1).clamp(min=1))
        low = exact.floor().clamp(max=self.grid - 1)
        return low.long(), (low + 1).clamp(max=self.grid - 1).long(), exact - low

    def read(self, ids: Tensor) -> Tensor:
        """Token ids [M, T] int64 -> states [M, T, D]."""
        states: Tensor = self.text(ids)
        return states + self.types.weight[TEXT]

    def fuse(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Text [B, T, D], visual [B, 1 + R, D] masks [B, T], [B, 1 + R] bool -> pooled [B, D], text, visual updated."""
        states = self.norm(run_layers(self.blocks, *joined(text, text_mask, visual, visual_mask)))
        return self.pooler(states), states[:, : text.shape[1]], states[:, text.shape[1] :]

    def pool(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """The pooled [B, D] of `fuse` alone: the last block computes only [CLS]."""
        first = run_for_first(self.blocks, *joined(text, text_mask, visual, visual_mask))
        pooled: Tensor = self.pooler(self.norm(first))
        return pooled

    def attend(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """The attention of [CLS] to each patch in the last block: [B, 1 + R], sums of 1, 0 for the class token."""
        *blocks, last = self.blocks
        assert isinstance(last, Block)
        states, keys = joined(text, text_mask, visual, visual_mask)
        normed = last.norm1(run_layers(blocks, states, keys))
        patches = visual_mask.index_fill(1, visual_mask.new_zeros(1, dtype=torch.int64), False)
        return weights_over_image(last.attention.weights(normed[:, :1], normed, keys)[:, 0], patches)
