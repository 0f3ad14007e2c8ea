"""BriVL: a dual encoder with a tower over image regions and a tower over text.

Shapes: N images, M texts, S x S pixels, R regions, T text tokens, B rows of either, L tokens of either, C channels of
an image's map, D width of the text tower, E width of the embeddings.
Source: Huo et al. 2021 (arXiv 2103.06561) and its official code.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.layers.attention import Attention, attention_mask, run_layers
from vlbench.models.layers.bert import BertConfig, TextEmbeddings, initialize
from vlbench.models.layers.efficientnet import B0, B5, EfficientNet, Layout, Stage

TINY = Layout(16, (Stage(1, 3, 1, 1, 16), Stage(1, 3, 2, 4, 32), Stage(1, 3, 2, 4, 64)), 64)
LAYOUTS = {"tiny": TINY, "b0": B0, "b5": B5}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation of red, green and blue, in [0, 1]."""

Sampling: TypeAlias = Literal["official", "geometric"]


class BriVLConfig(BertConfig):
    """The sizes of the architecture; vocab_size comes from the data.

    cnn: the EfficientNet. frozen_stages: how many of its stages are not trained; if above 0, neither are its first and
    last convolution. side: the side in pixels of the square that images are resized to. max_boxes: the first ones are
    used of an image with more; the whole image is one more box. grid: sampling points along the side of a box, whose
    mean is its feature. layers, and the sizes of `BertConfig`: of the text tower. frozen_layers: how many of its layers
    are not trained; if above 0, neither are its embeddings. head_*: of the self-attention on top of each tower.
    embedding: width of the embeddings. sampling:
    `official` is what the released weights were trained with: the points of a box are w / (w - 1) times as far from the
    left edge of a map of w cells (and from its upper edge likewise), and BERT attends to padding; `geometric` samples
    inside the box, and masks padding.
    """

    cnn: Literal["tiny", "b0", "b5"]
    frozen_stages: int = Field(ge=0)
    side: int = Field(ge=1)
    max_boxes: int = Field(ge=0)
    grid: int = Field(ge=1)
    layers: int = Field(ge=1)
    frozen_layers: int = Field(ge=0)
    head_layers: int = Field(ge=1)
    head_heads: int = Field(ge=1)
    head_inner: int = Field(ge=1)
    head_dropout: float = Field(ge=0, lt=1)
    embedding: int = Field(ge=1)
    sampling: Sampling = "geometric"

    @model_validator(mode="after")
    def _numbers_agree(self) -> BriVLConfig:
        for what, width in (("width", self.width), ("channels of the cnn", LAYOUTS[self.cnn].head)):
            if width % self.head_heads:
                raise ValueError(f"{what} {width} must be a multiple of head_heads {self.head_heads}")
        if self.sampling == "official" and self.side <= LAYOUTS[self.cnn].stride:
            raise ValueError(
                f"side {self.side} must be above {LAYOUTS[self.cnn].stride} for sampling 'official', which needs a map "
                f"of at least 2 x 2 cells"
            )
        return self


class HeadLayer(nn.Module):
    """A post-norm transformer layer with a ReLU, PyTorch's default. Source: Vaswani et al. 2017."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, L, width], mask [B, 1, 1, L] bool -> [B, L, width]."""
        states = self.norm1(states + self.dropout(self.attention(states, mask)))
        inner = self.dropout(functional.relu(self.linear1(states)))
        updated: Tensor = self.norm2(states + self.dropout(self.linear2(inner)))
        return updated


class TowerHead(nn.Module):
    """From a tower's tokens to its embedding: normalized tokens, self-attention, mean, two linear layers."""

    def __init__(self, width: int, config: BriVLConfig) -> None:
        super().__init__()
        sizes = (width, config.head_heads, config.head_inner, config.head_dropout)
        self.layers = nn.ModuleList(HeadLayer(*sizes) for _ in range(config.head_layers))
        self.fc1 = nn.Linear(width, config.embedding)
        self.fc2 = nn.Linear(config.embedding, config.embedding)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens [B, L, width], mask [B, L] bool (True where real) -> embeddings [B, E] of length 1."""
        states = run_layers(self.layers, functional.normalize(tokens, dim=-1), attention_mask(mask))
        real = mask[..., None].to(states)
        mean = (states * real).sum(dim=1) / real.sum(dim=1)
        return functional.normalize(self.fc2(functional.relu(self.fc1(mean))), dim=-1)


class ImageTower(nn.Module):
    """The convolutional network, regions of its map, and the head. Regions get no position embedding."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: BriVLConfig) -> None:
        super().__init__()
        layout = LAYOUTS[config.cnn]
        self.grid = config.grid
        self.sampling = config.sampling
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(DEVIATION)[:, None, None], persistent=False)
        self.cnn = EfficientNet(layout, config.frozen_stages)
        self.project = nn.Linear(layout.head, layout.head)
        self.head = TowerHead(layout.head, config)

    def forward(self, pixels: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
        """Pixels [N, 3, S, S] uint8, boxes [N, R, 4] in [0, 1], mask [N, R] bool -> embeddings [N, E]."""
        maps = self.cnn((pixels - self.mean) / self.deviation)
        # The official code projects each point before taking the mean: both are linear, and this is cheaper.
        embedded: Tensor = self.head(self.project(box_means(maps, boxes, self.grid, self.sampling)), mask)
        return embedded


class TextTower(nn.Module):
    """BERT and the head. With official sampling BERT attends to padding: texts need one length in all batches."""

    def __init__(self, config: BriVLConfig) -> None:
        super().__init__()
        self.attends_to_padding = config.sampling == "official"
        self.embeddings = TextEmbeddings(config.vocab_size, config.positions, config.width, config.dropout)
        self.layers = config.encoder_layers(config.layers)
        for part in (self.embeddings, self.layers):
            initialize(part, config.initial_std)
        if config.frozen_layers:
            for part in (self.embeddings, *self.layers[: config.frozen_layers]):
                part.requires_grad_(False)
        self.head = TowerHead(config.width, config)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids [M, T] int64, mask [M, T] bool -> embeddings [M, E] of length 1."""
        keys = attention_mask(mask[:, :0] if self.attends_to_padding else mask)
        embedded: Tensor = self.head(run_layers(self.layers, self.embeddings(ids), keys), mask)
        return embedded


class BriVLNetwork(nn.Module):
    """Both towers. In eval mode row b of each result depends on row b of the input only."""

    def __init__(self, config: BriVLConfig) -> None:
        super().__init__()
        self.image = ImageTower(config)
        self.text = TextTower(config)


def box_means(maps: Tensor, boxes: Tensor, grid: int, sampling: Sampling = "geometric") -> Tensor:
    """The mean of each box over a map, sampled at the middles of grid x grid equal parts: [N, R, C].

    maps [N, C, h, w] are interpolated between cells, and 0 outside. boxes [N, R, 4]: x1, y1, x2, y2 in [0, 1].
    sampling: `geometric` samples x at cell coordinate x * w - 0.5; `official` samples at x * w / (w - 1) instead of x:
    the official code scales boxes for aligned corners but samples with `align_corners=False`. It needs h and w of at
    least 2.
    """
    corner, opposite = boxes[..., None, :2], boxes[..., None, 2:]
    steps = (torch.arange(grid, device=boxes.device) + 0.5)[:, None] / grid
    x, y = (corner + steps * (opposite - corner)).unbind(-1)  # [N, R, grid] each
    points = torch.stack([x[..., None, :].expand(*x.shape, grid), y[..., None].expand(*y.shape, grid)], dim=-1)
    if sampling == "official":
        cells = boxes.new_tensor([maps.shape[-1], maps.shape[-2]])
        points = points * (cells / (cells - 1))
    sampled = functional.grid_sample(maps.float(), 2 * points.flatten(2, 3) - 1, align_corners=False)
    return sampled.mean(dim=-1).transpose(1, 2)  # [N, C, R, grid * grid] -> [N, R, C]
